"""The README's library example runs and learns; its commands compose; its links lead somewhere."""

import re
import shlex
import string
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ten_lines_on_a_model_of_ones_own():
    import torch

    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    inputs, model = names["inputs"], names["model"]
    accuracy = (model(inputs).argmax(1) == (inputs.sum(1) > 0)).float().mean().item()
    assert accuracy > 0.8  # chance is 0.5, and 256 draws of a fair coin pass 0.65 once in a million
    statements = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(statements) <= 10


VARIABLES = {**dict(re.findall(r'^    ([A-Z])="(.*)"$', README, re.MULTILINE)), "ZO_SHARED": "shared"}
FOUND = re.findall(r"^    python launch\.py (.*?)\s*(?:#.*)?$", README, re.MULTILINE)
SWEEPS = [command for command in FOUND if command.startswith("-m ")]
COMMANDS = [command for command in FOUND if command not in SWEEPS]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command, capsys):
    from experiments.cli import main

    for _ in range(2):  # $M holds $ZO_SHARED
        command = string.Template(command).safe_substitute(VARIABLES)
    words = [word for word in shlex.split(command) if not word.startswith("-") and word != "job"]
    assert main([*words, "--cfg", "job"]) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", SWEEPS)
def test_sweeps_are_planned(command, tmp_path, capsys):
    from experiments.cli import main

    words = [word for word in shlex.split(command) if word != "--dry-run"]
    assert main([*words, "--dry-run", f"paths.runs={tmp_path}"]) == 0, capsys.readouterr().err
    assert "runs, " in capsys.readouterr().out


def test_there_are_commands():
    assert len(COMMANDS) >= 5 and len(SWEEPS) >= 3


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).exists()
