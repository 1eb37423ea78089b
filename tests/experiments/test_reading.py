"""JSON files that come and go while one reads them."""

import pytest

from experiments.rundir.json_files import read_json


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
