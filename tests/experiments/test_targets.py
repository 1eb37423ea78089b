"""Run folders are passed on: what a config.yaml names is called only if it is a class of its group's kind."""

from typing import Any

import pytest

from experiments.__main__ import main
from experiments.config.compose import compose
from experiments.rundir.folder import RunFolder


@pytest.fixture
def given(tmp_path):
    """The folder of a run whose configuration somebody has changed."""

    def make(**sections: dict[str, Any]):
        config = compose([]).config
        assert config is not None
        folder = RunFolder(tmp_path / "given")
        folder.write_config(config | sections)
        return folder.path

    return make


@pytest.mark.parametrize("command", ["replay", "export"])
def test_a_command_in_a_config_is_not_run(given, tmp_path, capsys, command):
    path = given(schedule={"_target_": "os.system", "command": f"touch {tmp_path / 'run'}"})
    more = [] if command == "replay" else ["--out", str(tmp_path / "out")]
    assert main([command, str(path), *more]) == 2
    assert not (tmp_path / "run").exists()
    assert (
        capsys.readouterr().err
        == "schedule._target_ = os.system is no class derived from zo.schedules.Schedule, and "
        "nothing else is called. Name one that is, such as those in conf/schedule.\n"
    )


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
        ({"optimizer": {"_target_": "mypackage.Own"}}, "cannot be imported: No module named 'mypackage'"),
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
    assert main(["replay", str(given(optimizer={"_target_": "mypackage_of_zo.Own", "mine": 3}))]) == 2
    assert capsys.readouterr().err == "mine = 3 has come here.\n"
