"""Hashes of configurations are those that were recorded before RunConfig: runs are found again."""

import json
from pathlib import Path

import pytest

from experiments.config.compose import compose
from experiments.config.run_config import parse
from experiments.config.run_id import hash_of

RECORDED = json.loads(Path(__file__).with_name("recorded_hashes.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("line", RECORDED)
def test_a_configuration_has_the_hash_it_had(line):
    config = compose(line.split()).config
    assert config is not None
    hashes = [hash_of(config, ["m", "d"], steps)[:16] for steps in (10, 0)]
    assert hashes == RECORDED[line]
    again = parse(config.recorded())
    assert [hash_of(again, ["m", "d"], steps)[:16] for steps in (10, 0)] == hashes
