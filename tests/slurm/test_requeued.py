"""What others do to a job on a real SLURM: an administrator's requeue; and what a job is given: GPU slots, modules."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.__main__ import main as after
from experiments.launching.states import states
from experiments.launching.submission import submission
from tests.slurm.test_slurm import LONG, PATIENCE, SMALL, Site, ended, job, restarts, result, until

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("sbatch") is None, reason="there is no SLURM here: no sbatch"),
]


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    for path in site.folder.glob("*/sweeps/*/sweep.json"):
        after(["cancel", str(path.parent)])


def test_an_administrators_requeue_is_never_taken_for_a_stop(site, capsys):
    """SIGTERM leaves `stopped` in status.json; until the job begins again, squeue alone knows that it will."""
    (folder,) = site.submit("requeued", "budget.steps=1000000", "seed=11")
    until(lambda: (folder / "journal").exists() and (folder / "journal").stat().st_size > 1000)
    first, seen = job(folder), set()
    subprocess.run(["scontrol", "requeue", first], check=True)
    tried = False
    end = time.monotonic() + 300
    while True:
        (found,) = states([folder])
        seen.add(found.state)
        stopped = '"stopped"' in (folder / "status.json").read_text()
        if stopped and not tried:
            tried = True
            capsys.readouterr()
            assert after(["retry", "--stopped", str(folder)]) == 0
            assert capsys.readouterr().out == "No run failed.\n"
            site.submit("requeued", "budget.steps=1000000", "seed=11")
            assert "1 running or waiting elsewhere" in capsys.readouterr().out
        if tried and not stopped and found.detail.startswith("process"):
            break
        assert time.monotonic() < end
        time.sleep(0.3)
    assert seen <= {"running", "requeued"} and restarts(folder) == 1
    assert job(folder) == first
    listed = subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True).stdout.split()
    assert listed.count("zo-requeued") == 1


def test_two_commands_at_once_make_one_job(site):
    words = [
        *SMALL,
        f"paths.runs={site.folder / 'runs'}",
        "optimizer=mezo",
        LONG,
        "seed=12",
        "cluster.more={hold: true}",
    ]
    command = [sys.executable, str(ROOT / "launch.py"), "-m", *words, "--name", "once"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[0] for process in both]
    listed = subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True).stdout.split()
    assert listed.count("zo-once") == 1 and [process.returncode for process in both] == [0, 0]
    assert sum("Submitted as" in text for text in said) == 1


def test_a_job_has_gpu_slots_and_the_users_modules(site, tmp_path, monkeypatch):
    """Two tasks of one GPU each are two GPUs of the node, and a module of one file is found behind the frozen code."""
    (tmp_path / "mine.py").write_text(
        "import os\n\nfrom zo.optimizers import MeZO\n\nWORD = os.environ['MINE_WORD']\n\n\n"
        "class Mine(MeZO):\n    pass\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("MINE_WORD", "the environment reaches a job too, or this module fails")
    monkeypatch.syspath_prepend(tmp_path)
    (folder,) = site.submit(
        "gpus",
        "optimizer._target_=mine.Mine",
        "seed=13",
        "budget.steps=3",
        "cluster.tasks=2",
        "cluster.gpus=1",
    )
    said = subprocess.run(
        ["scontrol", "show", "job", "-o", job(folder)], capture_output=True, text=True
    ).stdout
    assert "gpu:2" in said and "MinMemoryNode=4G" in said
    assert (submission(folder) or {})["pythonpath"] == [str(tmp_path)]
    assert ended([folder]) == ["finished"]
    assert (result(folder)["ranks"], result(folder)["method"]) == (2, "mine")


def test_two_nodes_are_asked_for(site, capfd):
    """This site has one, and says so."""
    site.submit("nodes", "seed=14", "budget.steps=3", "cluster.nodes=2", code=2)
    said = capfd.readouterr()
    assert (said.err + said.out).count("Node count specification invalid") == 1
