"""The first word on the screen comes before the imports that take seconds, and only where a person reads it."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.display.first_word import WORDS

ROOT = Path(__file__).parents[2]


def shown(*arguments: str, piped: bool = False) -> tuple[str, float]:
    """What launch.py writes to stderr on a terminal, and after how many seconds its first word came."""
    master, slave = pty.openpty()
    began = time.monotonic()
    out = subprocess.PIPE if piped else slave
    with subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), *arguments], stdin=slave, stdout=out, stderr=slave
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


def test_a_command_that_takes_seconds_says_so_first():
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    bare = time.monotonic() - began
    said, first = shown("optimizer=nothing")
    assert said.startswith(WORDS)
    assert (
        first < 0.5 + 4 * bare
    )  # half a second where Python itself begins at once; a busy machine takes longer


@pytest.mark.parametrize("flag", ["--help", "-h", "--version", "--cfg=job"])
def test_an_answer_that_comes_at_once_has_no_word_before_it(flag):
    assert WORDS not in shown(flag)[0]


def test_a_pipe_gets_none():
    assert shown("optimizer=nothing", piped=True)[0].startswith("1 problem")


def test_nothing_heavy_is_imported_before_it():
    heavy = "{'hydra', 'rich', 'torch'}"
    script = f"import sys; import experiments.display.first_word; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
