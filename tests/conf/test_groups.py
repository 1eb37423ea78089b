"""Every file of conf/ composes, is valid and says what its constructor says."""

import inspect
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.config.compose import CONF, compose, groups
from experiments.config.key import dataclass_in, hints
from experiments.config.launcher_config import Cluster
from experiments.config.model_config import ModelConfig
from experiments.config.run_config import CALLS as SECTIONS
from experiments.config.run_config import KINDS, RunConfig
from experiments.config.signatures import arguments
from experiments.config.task_config import TaskConfig

CHOICES = [f"{group}={option}" for group, options in groups().items() for option in options]
CALLS = [path for group in SECTIONS for path in sorted((CONF / group).glob("*.yaml"))]
PROGRAM = {"params", "seed", "on_nan"}  # what the program passes, and no YAML of a constructor names
RECIPES = sorted((CONF / "recipe").glob("*.yaml"))


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def constructor(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def content(path: Path) -> dict[str, Any]:
    """The file's own keys; what it refers to is as conf/config.yaml has it."""
    whole: Any = OmegaConf.load(CONF / "config.yaml")
    del whole["defaults"]
    whole["here"] = OmegaConf.load(path)
    loaded: Any = OmegaConf.to_container(whole, resolve=True)
    return loaded["here"]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_composes_and_is_valid(choice):
    # A model of the hub or the user's own has no default folder.
    more = ["model.path=somewhere"] if choice == "model=hub" else []
    result = compose([choice, *more])
    assert result.problems == []
    assert result.config is not None


def test_the_default_composes_and_lists_every_section():
    result = compose([])
    assert result.problems == []
    assert result.config is not None
    assert result.config.optimizer.target == "zo.optimizers.FZOO"
    assert set(groups()) - {"experiment", "debug"} < set(result.config.as_dict())


@pytest.mark.parametrize("path", CALLS, ids=name_of)
def test_yaml_signature_and_defaults_are_equal(path):
    values = content(path)
    signature = inspect.signature(constructor(values.pop("_target_")))
    taken = {
        name: parameter.default for name, parameter in signature.parameters.items() if name not in PROGRAM
    }
    written = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    assert written == taken
    assert {name: type(value) for name, value in written.items()} == {n: type(d) for n, d in taken.items()}


@pytest.mark.parametrize(("more", "batch"), [([], 16), (["batch.size=4"], 4), (["optimizer.batch=8"], 8)])
def test_helene_is_told_the_batch_size(more, batch):
    result = compose(["optimizer=helene", *more])
    assert result.config is not None and result.config.optimizer.options["batch"] == batch


@pytest.mark.parametrize("path", [p for p in CALLS if "directions" in content(p)], ids=name_of)
def test_directions_are_a_name_or_a_mapping_with_options(path):
    for given, value in (
        ("lowrank", "lowrank"),
        ("{kind: lowrank, rank: 4}", {"kind": "lowrank", "rank": 4}),
    ):
        result = compose([f"optimizer={path.stem}", f"optimizer.directions={given}"])
        assert result.problems == [] and result.config is not None
        assert result.config.optimizer.options["directions"] == value


@pytest.mark.parametrize("path", CALLS, ids=name_of)
def test_the_constructor_read_from_source_is_the_one_python_calls(path):
    target = content(path)["_target_"]
    signature = inspect.signature(constructor(target))
    for argument in arguments(target):
        parameter = signature.parameters[argument.name]
        assert argument.default == parameter.default
        assert argument.type is not Any, (
            f"{target}: {argument.name} has no type that a YAML can be checked against"
        )
    assert {a.name for a in arguments(target)} == set(signature.parameters) - PROGRAM


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_is_named_by_a_model_and_an_optimizer_and_takes_effect(path):
    pairs = [(m, o) for m in groups()["model"] for o in groups()["optimizer"] if f"{m}-{o}" == path.stem]
    assert len(pairs) == 1
    model, optimizer = pairs[0]
    config = compose([f"model={model}", f"optimizer={optimizer}"]).config
    assert config is not None
    composed = config.as_dict()
    for section, values in content(path).items():
        assert composed[section] | values == composed[section]


def test_an_experiment_file_changes_groups_and_values_and_picks_their_recipe(tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "mine.yaml").parent.mkdir(exist_ok=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optimizer: mezo\nexperiment: mine\nseed: 7\n"
    )
    monkeypatch.setattr("experiments.config.compose.CONF", tmp_path / "conf")
    config = compose(["experiment=mine", "optimizer.n=3"]).config
    assert config is not None
    assert config.experiment == "mine"
    assert config.seed == 7
    assert config.optimizer.target == "zo.optimizers.MeZO"
    assert config.optimizer.options["n"] == 3
    recipe = content(CONF / "recipe" / "tiny-clm-mezo.yaml")
    assert config.optimizer.lr == recipe["optimizer"]["lr"]


def test_values_of_a_method_come_after_the_experiments_and_before_the_machines(tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    monkeypatch.setattr("experiments.config.compose.CONF", tmp_path / "conf")
    mine = tmp_path / "conf" / "experiment" / "mine.yaml"
    text = (
        "# @package _global_\ndefaults:\n  - override /optimizer: mezo\nexperiment: mine\nbatch: {size: 3}\n"
        "methods:\n  mezo: {optimizer: {lr: 0.5}}\n  adamw: {optimizer: {lr: 0.25}, batch: {size: 5}}\n"
    )
    mine.write_text(text)

    def values(*overrides: str) -> tuple[str, float, int]:
        config = compose(overrides).config
        assert config is not None
        return config.optimizer.target.rpartition(".")[2], config.optimizer.lr, config.batch.size

    assert values("experiment=mine") == ("MeZO", 0.5, 3)
    assert values("experiment=mine", "optimizer=adamw") == ("AdamW", 0.25, 5)
    assert values("experiment=mine", "optimizer=adamw", "batch.size=7") == ("AdamW", 0.25, 7)
    assert values("optimizer=adamw")[1] != 0.25  # of that experiment alone
    assert values("experiment=mine", "optimizer=zosgd")[2] == 3
    mine.write_text(text.replace("size: 5", "size: 6"))  # a file that changes is read again
    assert values("experiment=mine", "optimizer=adamw") == ("AdamW", 0.25, 6)
    local = tmp_path / "conf" / "local" / "default.yaml"
    local.parent.mkdir()
    local.write_text("# @package _global_\ndefaults:\n  - override /experiment: mine\nbatch: {size: 9}\n")
    assert values("optimizer=adamw") == ("AdamW", 0.25, 9)
    mine.write_text(text.replace("mezo: {optimizer: {lr: 0.5}}", "mezo: 3"))
    (problem,) = compose(["experiment=mine"]).problems
    assert "methods: it is a mapping of optimizers to values" in problem.what


def test_a_team_has_options_of_its_own_in_a_folder_that_git_ignores(tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    site = tmp_path / "conf" / "local" / "cluster" / "mysite.yaml"
    site.parent.mkdir(parents=True)
    site.write_text("defaults: [default]\npartition: gpu\nsetup: [module load cuda]\n")
    monkeypatch.setattr("experiments.config.compose.CONF", tmp_path / "conf")
    assert groups()["cluster"] == ["default", "mysite"]
    config = compose(["cluster=mysite", "cluster.qos=long"]).config
    assert config is not None
    assert (config.cluster.partition, config.cluster.qos) == ("gpu", "long")
    assert (config.cluster.setup, config.cluster.tasks) == (["module load cuda"], 1)


@pytest.mark.parametrize("path", sorted((CONF / "experiment").rglob("*.yaml")), ids=name_of)
def test_an_experiment_names_its_family(path):
    values = yaml.safe_load(path.read_text())  # as it is written: what depends on a mode has no value yet
    assert values["experiment"] == path.relative_to(CONF / "experiment").with_suffix("").as_posix()


def test_every_file_says_how_it_is_used():
    for path in CONF.rglob("*.yaml"):
        if path.parent.name == "local":
            continue
        lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
        assert lines[0].startswith("# "), f"{path} starts without a comment"
        assert yaml.safe_load(path.read_text()) is not None


def nulls(values: Any, declared: Any, path: str) -> list[str]:
    """The keys of a section that are null where their declaration's default is null too."""
    found = []
    for spec in fields(declared):
        if spec.name not in values:
            continue
        inner = dataclass_in(hints(declared)[spec.name])
        if values[spec.name] is None and spec.default is None:
            found.append(f"{path}.{spec.name}")
        elif inner is not None and isinstance(values[spec.name], dict):
            found += nulls(values[spec.name], inner, f"{path}.{spec.name}")
    return found


def test_no_file_repeats_a_default_as_null():
    """Constructor calls are listed whole, and a file may set back to null what another file sets."""
    found = nulls(OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml")), RunConfig, "config")
    kinds = {"model": ModelConfig, "task": TaskConfig, "cluster": Cluster}
    for group in (*kinds, *KINDS):
        for path in (CONF / group).glob("*.yaml"):
            kind = kinds.get(group) or KINDS[group][content(path)["name"]]
            found += nulls(content(path), kind, name_of(path))
    assert found == []
