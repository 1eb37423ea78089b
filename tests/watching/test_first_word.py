"""The first word on the screen comes before the imports that take seconds, and only where a person reads it."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.display.first_word import LOADS, READS, WORDS

ROOT = Path(__file__).parents[2]


LAUNCH = (str(ROOT / "launch.py"),)
COMMANDS = ("-m", "experiments")


def shown(*arguments: str, piped: bool = False, program: tuple[str, ...] = LAUNCH) -> tuple[str, float]:
    """What a program, launch.py by default, writes to stderr on a terminal, and after how many seconds it began."""
    master, slave = pty.openpty()
    began = time.monotonic()
    out = subprocess.PIPE if piped else slave
    with subprocess.Popen(
        [sys.executable, *program, *arguments], stdin=slave, stdout=out, stderr=slave, cwd=ROOT
    ) as process:
        os.close(slave)
        said, first = b"", 0.0
        while True:
            try:
                data = os.read(master, 1 << 16)
            except OSError:  # the program is gone
                break
            first = first or time.monotonic() - began
            said += data
        if process.stdout is not None:
            process.stdout.read()
    os.close(master)
    return said.decode().replace("\r", ""), first


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        (LAUNCH, ["optimizer=nothing"], WORDS),
        (COMMANDS, ["status", "/nowhere"], READS),
        (COMMANDS, ["report", "/nowhere"], READS),
        (COMMANDS, ["estimate", "optimizer=nothing"], LOADS["estimate"]),
    ],
)
def test_a_command_that_takes_seconds_says_so_first(program, arguments, words):
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    bare = time.monotonic() - began
    said, first = shown(*arguments, program=program)
    assert said.startswith(words)
    assert (
        first < 0.5 + 4 * bare
    )  # half a second where Python itself begins at once; a busy machine takes longer


@pytest.mark.parametrize("flag", ["--help", "-h", "--version", "--cfg=job"])
def test_an_answer_that_comes_at_once_has_no_word_before_it(flag):
    assert WORDS not in shown(flag)[0]


def test_a_pipe_gets_none():
    assert shown("optimizer=nothing", piped=True)[0].startswith("1 problem")
    said = shown("status", "/nowhere", piped=True, program=COMMANDS)[0]
    assert said.startswith("1 problem with this command.") and "There is no such folder." in said


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"]])
def test_help_of_the_commands_has_no_word_before_it(arguments):
    said = shown(*arguments, program=COMMANDS)[0]
    assert said.startswith("usage:")


def test_nothing_heavy_is_imported_before_it():
    heavy = "{'hydra', 'rich', 'torch'}"
    script = f"import sys; import experiments.display.first_word; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
