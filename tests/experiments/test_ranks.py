"""launch.py in two processes, as torchrun and srun start it."""

import json
import subprocess
import sys

import pytest

from experiments.ranks import Named
from tests.experiments.conftest import ROOT


@pytest.mark.slow
def test_torchrun_gives_the_result_of_one_process(runs, tmp_path):
    more = ("evaluate.batch=8", "optimizer=mezo", "select=best")
    one = runs(*more, f"paths.runs={tmp_path / 'one'}") or json.loads(
        next((tmp_path / "one").rglob("result.json")).read_text()
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        str(ROOT / "launch.py"),
    ]
    done = subprocess.run(
        [*command, *runs.arguments(*more)], cwd=ROOT, text=True, capture_output=True, check=True
    )
    (two,) = [result for result in runs.results() if "one" not in result["folder"].parts]
    assert two["ranks"] == 2
    clock = {"ranks", "seconds", "peak_memory_bytes", "folder"}
    assert {k: v for k, v in two.items() if k not in clock} == {
        k: v for k, v in one.items() if k not in clock
    }
    assert done.stdout.count("accuracy before") == 1  # rank 0 alone prints


def test_lines_are_named(tmp_path):
    with open(tmp_path / "said", "w") as file:
        stream = Named(file, "rank 3")
        stream.write("one\ntwo, ")
        stream.write("still two\n\n")
    assert (tmp_path / "said").read_text() == "rank 3: one\nrank 3: two, still two\nrank 3: \n"
