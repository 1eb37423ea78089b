"""A user's own files outside the repository: --config-dir, ZO_CONFIG_DIR, ~/.config/zo; --info; --key=value."""

import pytest

from experiments.commands.launch import main
from experiments.config.compose import CONF, compose, groups
from experiments.config.own_files import config_dir, own_folder
from experiments.launching.sweep_file import read_sweep


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with an optimizer, a task, a recipe, this machine's values and a sweep; its name needs quotes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    monkeypatch.delenv("ZO_CONFIG_DIR", raising=False)
    folder = tmp_path / "my conf's"
    for name, text in {
        "optimizer/mine.yaml": (CONF / "optimizer" / "mezo.yaml").read_text().replace("1e-6", "0.25"),
        "task/verdict.yaml": (CONF / "task" / "sentiment.yaml")
        .read_text()
        .replace("sentiment", "verdict", 1),
        "recipe/tiny-clm-mine.yaml": "# @package _global_\nbatch:\n  size: 3\n",
        "local/default.yaml": "# @package _global_\nthreads: 2\n",
        "sweeps/two.yaml": "overrides: [optimizer=mine]\nseeds: 2\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_flag_a_variable_and_the_default_name_it(own, monkeypatch, tmp_path):
    assert "mine" not in groups()["optimizer"]
    for begin in (
        lambda: monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path)),
        lambda: monkeypatch.setenv("ZO_CONFIG_DIR", str(own)),
    ):
        (tmp_path / "zo").unlink(missing_ok=True)
        (tmp_path / "zo").symlink_to(own)
        begin()
        config = compose(["optimizer=mine"]).config
        assert config is not None
        assert (config.batch.size, config.threads) == (3, 2), "its recipe and its machine's values act too"
    monkeypatch.setenv("ZO_CONFIG_DIR", str(tmp_path / "nowhere"))
    with config_dir(str(own)):  # the flag wins over the variable
        assert compose(["optimizer=mine"]).problems == []
        assert own_folder() == (own, "--config-dir")
    assert own_folder() == (tmp_path / "nowhere", "ZO_CONFIG_DIR")


def test_a_folder_that_is_not_there_is_said(own, capsys):
    assert main(["--config-dir", f"{own}/nowhere", "--cfg", "job"]) == 2
    assert "There is no such folder." in capsys.readouterr().err
    assert main(["--config-dir", str(own), "optimizer=mine", "--cfg", "job"]) == 0


def test_a_file_with_the_name_of_a_shipped_one_is_refused(own):
    (own / "optimizer" / "fzoo.yaml").write_text("_target_: zo.optimizers.MeZO\n")
    with config_dir(str(own)):
        (problem,) = compose(["optimizer=fzoo"]).problems
    assert str(own / "optimizer" / "fzoo.yaml") in problem.what and "Rename" in problem.what


def test_sweeps_are_found_there(own, capsys):
    with config_dir(str(own)):
        name, lines, problems = read_sweep("two", [])
        assert (name, problems) == ("two", []) and lines == [["optimizer=mine", "seed=0,1"]]
        assert read_sweep("sweeps/two.yaml", [])[1] == lines
        assert "two" in read_sweep("tow", [])[2][0].what
    assert "two" not in read_sweep("tow", [])[2][0].what
    assert main(["--config-dir", str(own), "-m", "sweep=two", "--dry-run", "budget.steps=1"]) == 0
    assert "2 runs" in capsys.readouterr().out


def test_info_names_folders_and_files_in_their_order(own, capsys):
    assert main(["--info", "--config-dir", str(own), "optimizer=mine", "seed=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"own conf {own} (--config-dir)" in lines and f"conf     {CONF}" in lines
    files = [line.strip() for line in lines if line.endswith(".yaml")]
    order = [
        CONF / "config.yaml",
        own / "optimizer/mine.yaml",
        own / "recipe/tiny-clm-mine.yaml",
        own / "local/default.yaml",
    ]
    at = [files.index(str(path)) for path in order]
    assert at == sorted(at)


def test_flags_of_an_agent_set_known_keys(capsys):
    """W&B's agents write --key=value for each parameter of a sweep."""
    assert (
        main(
            [
                "--optimizer=mezo",
                "--optimizer.lr=0.5",
                "--seed=7",
                "--cfg",
                "job",
                "--package",
                "optimizer.lr",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out == "0.5\n"
    assert main(["--cfg=job", "--package=seed", "--seed=7"]) == 0, "our own flags win"
    assert capsys.readouterr().out == "7\n"
    assert main(["--optimizer.lrr=1", "--lr=2"]) == 2
    said = capsys.readouterr().err
    assert "There is no key optimizer.lrr. Did you mean optimizer.lr?" in said
    assert "--lr=2\n      There is no such flag." in said
