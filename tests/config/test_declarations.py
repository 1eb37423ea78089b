"""Each key is declared once: help, the table of the documentation and the hash read the declarations."""

import re
import runpy
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from experiments.config.compose import compose
from experiments.config.describe import described
from experiments.config.key import bare, help_of, hints
from experiments.config.launcher_config import LAUNCHERS
from experiments.config.peft_config import MODES
from experiments.config.run_config import Call, RunConfig, parse
from experiments.config.run_id import decisive
from experiments.config.tracker_config import TRACKERS
from zo.errors import ConfigError

ROOT = Path(__file__).parents[2]


def declared(kind, above=""):
    """Every dotted key of a dataclass, with its declaration."""
    for spec in fields(kind):
        hint = hints(kind)[spec.name]
        yield f"{above}{spec.name}", hint
        if isinstance(bare(hint), type) and is_dataclass(bare(hint)) and bare(hint) is not Call:
            yield from declared(bare(hint), f"{above}{spec.name}.")


def test_every_key_has_a_sentence_of_help():
    kinds = (RunConfig, *LAUNCHERS.values(), *MODES.values(), *TRACKERS.values())
    without = [name for kind in kinds for name, hint in declared(kind) if not help_of(hint).endswith(".")]
    assert without == []


def test_help_shows_every_key_with_its_sentence():
    composed = compose([])
    assert composed.tree is not None
    text = described(composed.tree)
    for name in ("seed", "budget", "batch", "stop"):
        assert help_of(hints(RunConfig)[name]) in text
    assert re.search(r"^  size: 16 +# Examples per step\. \(a whole number of at least 1", text, re.MULTILINE)
    assert re.search(r"^  eps: 0\.001 +# distance of the probes", text, re.MULTILINE)


def test_the_tables_of_the_documentation_are_the_declarations():
    tables = runpy.run_path(str(ROOT / "tools" / "config_tables.py"))
    text = tables["PAGE"].read_text(encoding="utf-8")
    assert tables["with_tables"](text) == text, "run python tools/config_tables.py"


@pytest.mark.parametrize(
    ("override", "counts"),
    [("batch.size=3", True), ("evaluate.batch=3", False), ("seed=4", False), ("model.dtype=float16", True),
     ("model.device=cpu", False), ("task.train=7", True), ("threads=2", False), ("select=best", True)],
)  # fmt: skip
def test_the_hash_reads_the_declaration(override, counts):
    first, other = compose([]).config, compose([override]).config
    assert first is not None and other is not None
    assert (decisive(first, 5) != decisive(other, 5)) is counts


def test_a_recorded_configuration_is_parsed_to_the_same():
    config = compose(["optimizer=adamw", "peft=lora", "tracker=tensorboard"]).config
    assert config is not None
    assert parse(config.as_dict()) == config
    assert list(parse(config.recorded()).recorded()) == list(config.recorded())


def test_parsing_lists_every_problem():
    config = compose([]).config
    assert config is not None
    values = config.as_dict() | {"batch": {"size": 0}, "nonsense": 1, "peft": {"name": "adapter"}}
    with pytest.raises(ConfigError) as caught:
        parse(values)
    text = str(caught.value)
    assert all(word in text for word in ("batch.size=0", "nonsense", "peft.name=adapter"))


def test_nothing_behind_compose_reads_the_configuration_as_a_mapping():
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "experiments").rglob("*.py"))
        if path.parent.name != "config"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"""config\[["']""", line)
    ]
    assert found == []
