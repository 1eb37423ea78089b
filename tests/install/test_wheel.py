"""What pip installs: every file is in it, and its command works in any folder, without this checkout."""

import json
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from .conftest import ROOT, environment, program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
SHORT = ("budget.steps=2", "task.train=40", "task.dev=8", "task.test=16", "batch.size=4", "threads=1")


def test_every_file_of_the_tree_is_in_the_wheel(built):
    names = zipfile.ZipFile(built.wheel).namelist()
    in_tree = [name for name in built.files if name.startswith(("zo/", "experiments/", "conf/", "sweeps/"))]
    placed = [f"experiments/{name}" if name.startswith(("conf/", "sweeps/")) else name for name in in_tree]
    assert sorted(name for name in names if ".dist-info/" not in name) == sorted(
        [*placed, "experiments/CODE.json"]
    )
    assert (
        sum(name.endswith(".yaml") for name in names) == sum(name.endswith(".yaml") for name in in_tree) > 150
    )
    assert {"zo/py.typed", "zo/kernels/native.cpp", "experiments/conf/config.yaml"} <= set(names)


def test_every_file_of_the_tree_is_in_the_sdist(built):
    with tarfile.open(built.sdist) as archive:
        names = sorted(member.name.partition("/")[2] for member in archive.getmembers() if member.isfile())
    assert names == sorted([*built.files, "CODE.json", "PKG-INFO"])


def test_the_library_is_allowed_on_python_3_14_and_needs_torch_alone(built):
    archive = zipfile.ZipFile(built.wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    fields = Parser().parsestr(archive.read(metadata).decode())
    needed = [line for line in fields.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert (fields["Name"], fields["Requires-Python"], needed) == ("zo-finetune", ">=3.11", ["torch>=2.6"])
    hydra = [line for line in fields.get_all("Requires-Dist", []) if line.startswith("hydra-core")]
    assert hydra and all(
        "python_version < '3.14'" in line or 'python_version < "3.14"' in line for line in hydra
    )


def test_a_run_a_sweep_a_report_and_a_replay_in_a_folder_with_its_own_experiments(
    built, installed, elsewhere
):
    zo = program(installed, elsewhere)
    assert "finished" in zo("run", *SHORT).stdout
    (run,) = (path.parent for path in elsewhere.glob("runs/default/*/*/seed0/result.json"))
    made_by = json.loads((run / "provenance.json").read_text())
    assert (made_by["commit"], made_by["version"]) == (built.commit, zo("--version").stdout.split()[1])

    swept = zo("sweep", "optimizer=mezo,fzoo", "seed=1", *SHORT, "--name", "two").stdout
    assert "2 of 2 runs ended" in swept
    frozen = {json.loads(path.read_text())["code"] for path in elsewhere.glob("runs/*/*/*/*/submission.json")}
    (code,) = map(Path, frozen)
    assert (
        code.parent == elsewhere / "runs" / "code"
        and (code / "experiments" / "conf" / "config.yaml").is_file()
    )
    assert {path.name for path in code.iterdir()} == {"zo", "experiments", "CODE.json"}, (
        "no other program's code"
    )

    assert "3 finished" in zo("status", "runs").stdout
    zo("report", "runs", "--out", "report")
    assert "mezo" in (elsewhere / "report" / "index.html").read_text()
    assert "The bits are those of the run." in zo("replay", str(run)).stdout
    zo("export", str(run), "--out", "model")
    assert (elsewhere / "model" / "model.safetensors").is_file()


def test_a_failed_run_is_retried_from_the_folder_that_holds_runs(installed, elsewhere):
    zo = program(installed, elsewhere)
    zo("sweep", "optimizer=fzoo", "seed=0", *SHORT)
    (result,) = elsewhere.glob("runs/default/*/*/seed0/result.json")
    result.unlink()
    status = result.with_name("status.json")
    status.write_text(
        json.dumps(json.loads(status.read_text()) | {"state": "failed", "error": "the node went down"})
    )
    assert "1 failed" in zo("status", "runs", code=1).stdout
    zo("retry", "runs")
    assert result.is_file() and "1 finished" in zo("status", "runs").stdout


def test_an_editable_installation_reads_the_tree(elsewhere, tmp_path):
    programs = environment(tmp_path / "venv", "--editable", str(ROOT))
    zo = program(programs, elsewhere)
    assert "finished" in zo("run", *SHORT).stdout
    zo("sweep", "optimizer=mezo,fzoo", *SHORT)
    code = Path(json.loads(next(elsewhere.glob("runs/*/*/*/*/submission.json")).read_text())["code"])
    assert (code / "conf" / "config.yaml").is_file() and (code / "launch.py").is_file()
