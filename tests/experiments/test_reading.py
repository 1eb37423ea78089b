"""JSON files that come and go while one reads them; many runs' files, which are read in a quicker way."""

import json

import pytest
import yaml

from experiments.config.compose import compose
from experiments.rundir.folder import RunFolder
from experiments.rundir.json_files import SECTIONS, read_configuration, read_json, row_of


@pytest.mark.parametrize("text", [None, "", '{"state": "run', "null", "[1]", b"\xff"])
def test_what_is_not_there_or_not_whole_is_nothing(tmp_path, text):
    path = tmp_path / "status.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_json(path) is None
    assert read_json(path / "below a file") is None


def test_a_file_that_goes_after_one_has_looked_is_nothing(tmp_path):
    """A link that leads nowhere is there for whoever lists the folder."""
    (tmp_path / "result.json").symlink_to(tmp_path / "gone")
    assert (tmp_path / "result.json") in list(tmp_path.iterdir())
    assert read_json(tmp_path / "result.json") is None


def test_what_a_run_wrote_is_read(tmp_path):
    (tmp_path / "result.json").write_text('{"after": 0.5}\n')
    assert read_json(tmp_path / "result.json") == {"after": 0.5}


HARD = {
    "text": "one\n\n  two \n- three\n# four\nkey: value", "on": {"'q": ["\n", "#", "", "- x"], "none": None},
    "long": "word " * 60, "numbers": [1, 2.5, 1e-7, float("inf"), True], "empty": {},
}  # fmt: skip


@pytest.mark.parametrize("same", [False, True])
def test_a_configuration_read_by_sections_is_what_yaml_reads(tmp_path, same):
    """same: one value in two places, which YAML writes as an anchor and an alias."""
    composed = compose(["task=squad", "optimizer=hizoo", "peft=lora"]).config
    assert composed is not None
    shared = [HARD]
    config = {**composed.recorded(), **HARD} | ({"a": shared, "b": shared} if same else {})
    assert set(SECTIONS) <= config.keys()
    folder = RunFolder(tmp_path)
    folder.write_config(config)
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert ("&id" in text) == same
    first, wrong = read_configuration(tmp_path)
    assert wrong is None and first == yaml.safe_load(text) and list(first) == list(config)
    first["optimizer"]["lr"] = first["task"]["options"] = "changed"  # a reader's own objects
    assert read_configuration(tmp_path)[0] == yaml.safe_load(text)


AXES = '"forward_passes": 2, "seconds": 0.5'


@pytest.mark.parametrize(
    "line",
    [
        f'{{"kind": "train", "steps": 1, "loss": 0.1, "x": 1e-320, "y": 1.7976931348623157e308, {AXES}}}',
        f'{{"kind": "dev", "steps": 1, "value": null, "loss": NaN, "big": 123456789012345678901234567890, {AXES}}}',
        f'{{"kind": "train", "steps": 1, "words": "\\ud800 \\u00e9 é", "steps": 2, {AXES}}}',
    ],
)
def test_a_row_is_what_json_reads(line):
    assert repr(row_of(line.encode())) == repr(json.loads(line))


@pytest.mark.parametrize(
    "change",
    [
        '"steps": true',
        '"steps": 1.0',
        '"seconds": "1"',
        '"forward_passes": false',
        '"kind": 1',
        '"value": []',
    ],
)
def test_what_is_no_row_is_none(change):
    row = {"kind": "dev", "steps": 1, "value": 0.5, "loss": 0.5, "forward_passes": 2, "seconds": 0.5}
    assert row_of(json.dumps(row).encode()) == row
    assert row_of(json.dumps(row | json.loads(f"{{{change}}}")).encode()) is None
