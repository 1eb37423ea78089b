"""Gives each method one colour, marker and dash, in every figure and on the page, on white and on black.

The colours were searched for, not picked: hues by family, then lightness and chroma such that any two of the ten
methods most often compared (`MAIN`) stay apart by CIE 1976 ΔE ≥ 20 for usual eyes, without red cones and without
green ones. Those dichromacies are simulated by Machado, Oliveira and Fernandes (2009, severity 1), matrices on
linear RGB. The other nineteen are as far from all as was left (ΔE ≥ 8), so that marker and dash help there. Every
colour has a contrast of 3 or more with its ground (WCAG 2's bound for graphics).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

LIGHT, DARK = "#ffffff", "#16181c"  # the grounds

# on white, on black, marker, dash
_TABLE = """
mezo            #5289e5 #6ea3f6 circle   solid
fzoo            #e66f14 #d75c06 square   solid
adamezo         #27a480 #3db28a triangle solid
hizoo           #630355 #c05da1 diamond  solid
adamw           #57595b #dcddde plus     dash
zoadam          #337ea5 #79d4fb down     solid
lozo            #805602 #f8ca5b cross    solid
zomuon          #5b25bf #9465fc star     solid
subzero         #6f1117 #ca504f circle   dash
helene          #829c54 #c8e69d square   dash
hizool          #573494 #9e62c0 diamond  dash
zoadamu         #646e46 #e5d50d down     dash
radazo          #3a9da2 #85bbca triangle dash
eggroll         #6d1731 #f9adb0 star     dash
zosgd           #1e507b #68a6d1 cross    dash
meazo           #684fc8 #985ed6 circle   dot
mezoswitch      #419bd4 #b4e7fc square   dot
zosign          #4a6cb4 #70b7fa triangle dot
zomomentum      #38647a #388ca8 diamond  dot
fzoor           #cf6139 #e4965c down     dot
forwardgradient #401993 #907bf8 cross    dot
lozom           #7e4920 #c85b32 star     dot
sparsemezo      #4f867e #528679 circle   dashdot
linearprobe     #5c2749 #ba90a8 plus     dot
lezo            #4c9ebb #6dbedc square   dashdot
zeroshot        #649463 #97bf85 plus     dashdot
icl             #447c61 #1c915b plus     solid
zoconservative  #6279f1 #5f94da triangle dashdot
sgd             #60812b #e0e686 diamond  dashdot
"""
MAIN = ("mezo", "fzoo", "adamezo", "hizoo", "adamw", "zoadam", "lozo", "zomuon", "subzero", "helene")
DASHES = {"solid": "", "dash": "7 3", "dot": "2 3", "dashdot": "8 3 2 3"}  # SVG's stroke-dasharray


@dataclass(frozen=True)
class Style:
    """A method's colour, marker and dash. light, dark: "#rrggbb" on white and on black."""

    light: str
    dark: str
    marker: str
    dash: str


STYLES = {name: Style(*rest) for name, *rest in (line.split() for line in _TABLE.split("\n") if line)}


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Returns a style for each name, no two alike.

    A method has its own; names of its variants get the remaining styles in order.
    """
    reserved = {name: STYLES[name] for name in names if name in STYLES}
    free = iter(look for look in STYLES.values() if look not in reserved.values())
    return {name: reserved.get(name) or next(free, None) or style(name) for name in names}


def style(method: str) -> Style:
    """Returns a method's style; an unknown method shares one, chosen by its name alone."""
    if method in STYLES:
        return STYLES[method]
    shareable = [name for name in STYLES if name not in MAIN]
    return STYLES[shareable[zlib.crc32(method.encode()) % len(shareable)]]
