"""Completes commands, groups, options, keys and flags for a shell: zo completion bash | zsh | fish.

The printed script calls `zo complete LINE` at each Tab, which prints what may stand for the line's last word.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.commands import launch
from experiments.commands.arguments import Parser
from experiments.config.compose import compose, groups
from experiments.config.describe import values_of_keys
from experiments.config.own_files import FLAG, config_dir

# Readline replaces only what stands behind the last = or : of a word, so what stands before is taken off.
BASH = r"""_zo() {
  local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n'
  local word="${line##*[[:space:]]}"
  COMPREPLY=($(zo complete "$line" 2> /dev/null))
  [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
  return 0
}
complete -o default -F _zo zo
"""
ZSH = r"""#compdef zo
_zo() {
  local -a found
  found=(${(f)"$(zo complete "${(j: :)words[1,CURRENT-1]} $PREFIX" 2> /dev/null)"})
  if (( ${#found} )); then compadd -Q -S '' -- $found; else _files; fi
}
compdef _zo zo
"""
FISH = r"""function __zo
  zo complete (commandline -cp | string collect) 2> /dev/null
end
complete -c zo -a '(__zo)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
COMMANDS = ("completion", "complete")
COMPOSED = ("run", "sweep", "estimate", "prefetch", "expected")  # commands that take overrides


def add(commands: Any) -> None:
    """Adds the commands' arguments."""
    script = commands.add_parser(
        "completion", help='a script that completes zo\'s words: eval "$(zo completion bash)"'
    )
    script.add_argument("shell", choices=tuple(SCRIPTS), help="the shell that will read the script")
    line = commands.add_parser("complete", help="what may stand for a line's last word; the scripts ask this")
    line.add_argument("line", help="the command line up to the cursor")


def perform(request: argparse.Namespace, parsers: Mapping[str, Parser]) -> int:
    """Prints a script, or what completes a line; 0. parsers: those of the commands, for their names and flags."""
    if request.command == "completion":
        sys.stdout.write(SCRIPTS[request.shell])
        return 0
    flags = {
        name: [flag for action in parser.declared for flag in action.option_strings if flag.startswith("--")]
        for name, parser in parsers.items()
    }
    flags |= {name: list(launch.FLAGS) for name in launch.COMMANDS}
    del flags["complete"]
    words = candidates(request.line, flags)
    sys.stdout.write("".join(f"{word}\n" for word in words))
    return 0


def candidates(line: str, flags: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns what may stand for the last word of a line; nothing where files are wanted."""
    _, *words = [*line.split(), *([""] if line[-1:].isspace() else [])]
    if len(words) < 2:
        return [name for name in flags if words and name.startswith(words[0])]
    command, *given, last = words
    if last.startswith("-"):
        return [flag for flag in flags.get(command, ()) if flag.startswith(last)]
    if command not in COMPOSED or given[-1:] == [FLAG]:
        return []
    with config_dir(_own(given)):
        return _of_configuration([word for word in given if "=" in word and not word.startswith("-")], last)


def _own(given: Sequence[str]) -> str | None:
    """Returns the folder of --config-dir."""
    text = " ".join(given)
    found = re.search(rf"{FLAG}[= ](\S+)", text)
    return found[1] if found else None


def _of_configuration(given: Sequence[str], last: str) -> list[str]:
    """Returns groups and keys, or a group's options or a key's values behind the equals sign."""
    options, (key, equals, value) = groups(), last.partition("=")
    if equals and key in options:
        return _values(key, value, options[key])
    chosen = [word for word in given if word.partition("=")[0] in options]
    tree = compose([word for word in chosen if "," not in word]).tree or compose([]).tree
    values = {} if tree is None else values_of_keys(tree)
    if equals:
        return _values(key, value, values.get(key, []))
    known = [f"{name}=" for name in (*options, *values)]
    if "." in last:
        return [name for name in known if name.startswith(last)]
    # Keys of a section are offered once its name is there: there are a hundred.
    short = [name.partition(".")[0] + "." if "." in name else name for name in known]
    return [name for name in dict.fromkeys(short) if name.startswith(last)]


def _values(key: str, value: str, allowed: Sequence[str]) -> list[str]:
    """Returns words for the value that is begun; a sweep has several, separated by commas."""
    before, comma, begun = value.rpartition(",")
    return [f"{key}={before}{comma}{word}" for word in allowed if word.startswith(begun)]
