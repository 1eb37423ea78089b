"""Shows warnings as the program's own sentences: once each, on stderr, without Python's path and source line."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zo.errors import ZOWarning

_OURS = ("zo", "experiments")
_MACHINERY = ("warnings", "_py_warnings", __name__)  # modules that stand between who warns and who shows
# The place in C++ that torch adds: it comes with torch's build and helps nobody who uses it.
_TRIGGERED = re.compile(r"\s*\(Triggered internally at [^)]*\)")
# A FutureWarning of these speaks of names that they use of each other and will rename: nothing follows from it for
# whoever runs the program.
_NOISE = ((FutureWarning, ("peft", "transformers", "torch", "huggingface_hub")),)


@contextmanager
def spoken_warnings(*, aloud: bool = True) -> Iterator[list[str]]:
    """Turns each warning into one sentence of the list it yields, and a line on stderr.

    Sentences of zo are kept as they are; those of other packages begin with the package's name. aloud: whether they
    are written to stderr too.
    """
    sentences: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        speaker = _speaker()
        if _is_noise(category, speaker) or (sentence := _sentence(message, category, speaker)) in sentences:
            return
        sentences.append(sentence)
        if aloud:
            sys.stderr.write(f"Warning: {sentence}\n")

    with warnings.catch_warnings():
        # Python's own rule, once for each line of source, may hide one.
        warnings.simplefilter("always", ZOWarning)
        warnings.showwarning = show
        yield sentences


def _speaker() -> str:
    """Returns the package whose code warns; Python names the caller's file, as far up as a stacklevel says."""
    frame = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name not in _MACHINERY:
            return name.partition(".")[0]
        frame = frame.f_back
    return ""


def _is_noise(category: type[Warning], speaker: str) -> bool:
    return any(issubclass(category, kind) and speaker in packages for kind, packages in _NOISE)


def _sentence(message: Warning | str, category: type[Warning], speaker: str) -> str:
    """Returns the message in one line, with a full stop."""
    words = str(message)
    plain = " ".join(_TRIGGERED.sub("", words).split()) or category.__name__
    plain = plain if plain[-1] in ".!?" else f"{plain}."
    if issubclass(category, ZOWarning):
        return plain
    if _TRIGGERED.search(words):  # of C++, which has no frame
        speaker = "torch"
    return f"{'Python' if speaker in ('', *_OURS) else speaker}: {plain}"
