"""Every YAML of the text side has only keys that are read, and repeats no default as null (tests/conf)."""

from dataclasses import fields

import pytest

from experiments.config.model_config import ModelConfig
from experiments.config.parsing import read
from experiments.config.peft_config import MODES, mode
from experiments.config.task_config import Causal, Classified, Masked, Source, TaskConfig, Templates

from ..models.tiny import CONF, conf


def names(kind):
    return {field.name for field in fields(kind)}


def files(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("name", files("model"))
def test_models(name):
    values = conf("model", name)
    assert set(values) <= names(ModelConfig)
    read(ModelConfig, values, "model")


@pytest.mark.parametrize("name", files("peft"))
def test_adapters(name):
    values = conf("peft", name)
    assert set(values) <= names(MODES[name])
    assert mode(values) == MODES[name](name=name)  # its own defaults


@pytest.mark.parametrize("name", files("task"))
def test_tasks(name):
    values = conf("task", name)
    assert values["name"] == name
    assert set(values) <= names(TaskConfig)
    assert set(values["source"]) <= names(Source)
    assert set(values["templates"]) <= names(Templates)
    for family, kind in (("causal", Causal), ("masked", Masked), ("classifier", Classified)):
        template = values["templates"].get(family)
        assert template is None or set(template) <= names(kind)
    read(TaskConfig, values, "task")
