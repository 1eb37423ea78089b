"""Run folders are passed on: what a config.yaml names is called only if it is a class of its group's kind."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.config.compose import compose
from experiments.rundir.folder import RunFolder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def given(tmp_path):
    """The folder of a run whose configuration somebody has changed."""

    def make(**sections: dict[str, Any]):
        config = compose([]).config
        assert config is not None
        folder = RunFolder(tmp_path / "given")
        folder.write_config(config.recorded() | sections)
        return folder.path

    return make


@pytest.mark.parametrize("command", ["replay", "export"])
@pytest.mark.parametrize("target", ["os.system", "this.X", "evil_module_of_a_stranger.X"])
def test_nothing_that_a_config_names_is_imported(given, tmp_path, capsys, monkeypatch, command, target):
    """Importing a module runs it, also if what it holds is refused afterwards."""
    (tmp_path / "evil_module_of_a_stranger.py").write_text(
        f"open({str(tmp_path / 'run')!r}, 'w', encoding='utf-8').close()\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    path = given(schedule={"_target_": target, "command": f"touch {tmp_path / 'run'}"})
    more = [] if command == "replay" else ["--out", str(tmp_path / "out")]
    assert main([command, str(path), *more]) == 2
    assert not (tmp_path / "run").exists() and "this" not in sys.modules
    said, module = capsys.readouterr(), target.rpartition(".")[0]
    assert said.err == (
        "1 problem with this command.\n\n"
        f"      schedule._target_ = {target} is no class of zo's. Importing it would run code that this run's folder "
        f"names, so nothing was imported. If you trust {module}: --allow {module}.\n\n"
        f"python -m experiments {command} --help shows what it takes.\n"
    )
    assert "Zen" not in said.out


def test_what_is_allowed_must_still_be_of_its_groups_kind(given, tmp_path, capsys):
    path = given(schedule={"_target_": "os.system", "command": f"touch {tmp_path / 'run'}"})
    assert main(["replay", str(path), "--allow", "os"]) == 2
    assert not (tmp_path / "run").exists()
    assert "os.system is no class derived from zo.schedules.Schedule" in capsys.readouterr().err


def test_the_working_folder_is_no_place_for_modules(tmp_path):
    """`cd RUN; python -m experiments` with a module in RUN that has the name of one that zo imports."""
    for name in ("yaml", "psutil", "pydantic"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w', encoding='utf-8').close()\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments", "status", "."]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "is neither a sweep nor a run" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"schedule": {"_target_": "zo.optimizers.MeZO"}}, "no class derived from zo.schedules.Schedule"),
        ({"optimizer": {"_target_": "zo.schedules.Linear"}}, "from zo.optimizers.optimizer.Optimizer"),
        ({"optimizer": {"_target_": "zo.optimizers"}}, "from zo.optimizers.optimizer.Optimizer"),
        (
            {"optimizer": {"_target_": "zo.optimizers.directions"}},
            "cannot be imported: module 'zo.optimizers'",
        ),
        ({"optimizer": {"_target_": "mypackage.Own"}}, "If you trust mypackage: --allow mypackage."),
        ({"optimizer": {"_target_": "MeZO"}}, "cannot be imported: Empty module name"),
        ({"optimizer": {"lr": 1.0}}, "optimizer._target_ = None cannot be imported"),
    ],
)
def test_what_else_is_no_optimizer_or_schedule_is_told(given, capsys, sections, said):
    assert main(["replay", str(given(**sections))]) == 2
    assert said in capsys.readouterr().err


def test_a_class_of_ones_own_is_taken(given, tmp_path, monkeypatch, capsys):
    """From a package beside zo; the error is of its constructor."""
    (tmp_path / "mypackage_of_zo.py").write_text(
        "from zo.errors import ConfigError\n"
        "from zo.optimizers import MeZO\n\n\n"
        "class Own(MeZO):\n"
        "    def __init__(self, params, mine, **more):\n"
        "        raise ConfigError(f'mine = {mine} has come here.')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = given(optimizer={"_target_": "mypackage_of_zo.Own", "mine": 3})
    assert main(["replay", str(path), "--allow", "mypackage_of_zo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("1 problem") and "\n      mine = 3 has come here.\n" in error
