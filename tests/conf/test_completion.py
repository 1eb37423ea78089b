"""Words for the shell: what completes a line, and that bash itself does it at the Tab key."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.commands.completion import SCRIPTS, candidates
from experiments.commands.launch import FLAGS

NAMES = {"run": FLAGS, "report": ["--out", "--by"], "retry": [], "estimate": ["--config-dir"]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("zo re", ["report", "retry"]),
        ("zo ", list(NAMES)),
        ("zo run optimizer=fzoo_", ["optimizer=fzoo_ablation"]),
        ("zo sweep optimizer=mezo,hizool", ["optimizer=mezo,hizool"]),
        ("zo run stop.on_nan=", ["stop.on_nan=stop", "stop.on_nan=skip"]),
        ("zo estimate save=t", ["save=true"]),
        ("zo run optimizer.lr", ["optimizer.lr="]),
        ("zo run optimizer=fzoo optimizer.n", ["optimizer.n="]),  # a key of that method
        ("zo run optimizer=none optimizer.n", []),
        ("zo run seed", ["seed=", "seeds."]),
        ("zo run --con", ["--config-dir"]),
        ("zo run optimizer=nothing stop.ev", ["stop.every="]),  # a wrong choice is completed around
        ("zo report --b", ["--by"]),
        ("zo report ru", []),  # the shell offers files
    ],
)
def test_what_completes_a_line(line, words):
    assert candidates(line, NAMES) == words


def test_own_files_are_offered(tmp_path):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("_target_: zo.optimizers.MeZO\nlr: 1e-3\neps: 1e-3\n")
    assert candidates(f"zo run --config-dir {tmp_path} optimizer=min", NAMES) == ["optimizer=mine"]
    assert candidates(f"zo run --config-dir={tmp_path} optimizer=min", NAMES) == ["optimizer=mine"]


def test_the_command_knows_the_flags_of_all(capsys):
    assert main(["complete", "zo report --passes"]) == 0
    assert capsys.readouterr().out == "--passes-to\n"
    assert main(["complete", "zo run --conf"]) == 0
    assert capsys.readouterr().out == "--config-dir\n"


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_script_for_each_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "zo complete" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("zo run optimizer=fzoo_\t", "zo run optimizer=fzoo_ablation "),
        ("zo sweep stop.on_n\t", "zo sweep stop.on_nan="),
        ("zo run stop.on_nan=sk\t", "zo run stop.on_nan=skip "),
        ("zo sweep optimizer=mezo,hizool\t", "zo sweep optimizer=mezo,hizool "),
        ("zo repl\t", "zo replay "),
        ("zo report own-fol\t", "zo report own-folder/"),
    ],
)
def test_in_bash_at_the_tab_key(typed, shown, tmp_path):
    """bash with readline on a terminal of its own; `zo` is this interpreter's."""
    (tmp_path / "own-folder").mkdir()
    (tmp_path / "zo").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from experiments.program import command; command()' \"$@\"\n"
    )
    (tmp_path / "zo").chmod(0o755)
    (tmp_path / "rc").write_text(f"PS1='> '\n{SCRIPTS['bash']}")
    master, slave = pty.openpty()
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": root, "TERM": "dumb"}
    with subprocess.Popen(
        ["bash", "--noprofile", "--rcfile", str(tmp_path / "rc"), "-i"],
        stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env=env, start_new_session=True,
    ) as bash:  # fmt: skip
        os.close(slave)
        os.write(master, typed.encode())
        try:
            assert _until(master, f"> {shown}")
        finally:
            bash.kill()
    os.close(master)


def _until(master: int, text: str) -> str:
    """What the terminal shows once the text is there."""
    seen, end = "", time.monotonic() + 240
    while text not in seen and time.monotonic() < end:
        if select.select([master], [], [], 1)[0]:
            seen += os.read(master, 4096).decode(errors="replace").replace("\r", "").replace("\a", "")
    assert text in seen, repr(seen)
    return seen
