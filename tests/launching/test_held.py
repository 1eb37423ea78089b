"""SLURM has the word on runs whose jobs it holds, no run is in the queue twice, and what nobody will start waits.

squeue, sbatch and srun are scripts here that answer as SLURM's do; tests/slurm has the real ones.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments.__main__ import main as after
from experiments.commands.launch import main
from experiments.config.compose import compose
from experiments.launching import code_snapshot
from experiments.launching.job import BUSY
from experiments.launching.slurm import submit
from experiments.launching.states import outcome_of, states, with_jobs
from experiments.launching.submission import LOCK, Pending, command_of, submission
from experiments.launching.worker import work
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import Lock, this_process
from experiments.watching.follow import Flock
from zo.errors import ConfigError


class Site:
    """A folder in front of PATH with SLURM's programs, and a file with the lines of its queue."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.queue, self.submissions = folder, folder / "queue", folder / "submissions"
        self.queue.touch()
        self.submissions.touch()
        self.program("squeue", f"cat {self.queue}")
        self.program("sacct", "true")
        self.program("srun", "true")
        self.program(
            "sbatch",
            f"""
sleep 0.3
echo "$@" >> {self.submissions}
number=$(wc -l < {self.submissions})
echo "$number|PENDING|Priority" >> {self.queue}
echo "Submitted batch job $number"
""",
        )
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def says(self, *lines: str) -> None:
        self.queue.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    (tmp_path / "bin").mkdir()
    return Site(tmp_path / "bin", monkeypatch)


def submitted(path: Path, state: str, *, job: str | None = "10", **more) -> Path:
    """A run's folder as a launcher leaves it."""
    folder = RunFolder(path)
    config = compose([]).config
    assert config is not None
    folder.write_config(config.recorded())
    command = ["python", "launch.py", "-m", "seed=0,1"]
    launch = {"name": "slurm", "wait": False, "requeues": 1}
    code = code_snapshot.freeze(path.parents[1])  # retry runs only a whole snapshot beside the runs
    asked = {"code": str(code), "cwd": os.getcwd(), "overrides": [], "command": command,
             "cluster": {}, "launch": launch}  # fmt: skip
    folder.write("submission.json", asked | ({"job": job} if job else {}) | more)
    folder.write_status(state, reason="SIGTERM", error="ValueError: no", steps=226)
    return folder.path


@pytest.mark.parametrize("state", ["stopped", "failed", "running"])
@pytest.mark.parametrize(
    ("line", "seen", "detail"),
    [("10|PENDING|BeginTime", "requeued", "job 10: BeginTime"), ("10|RUNNING|None", "running", "job 10"),
     ("10|COMPLETING|None", "running", "job 10 is completing")],
)  # fmt: skip
def test_squeue_is_asked_before_a_file_is_believed(site, tmp_path, state, line, seen, detail):
    """An administrator's requeue leaves `stopped  SIGTERM` in status.json until the job begins again."""
    folder = submitted(tmp_path / "a" / "b" / "seed0", state)
    site.says(line)
    (found,) = states([folder])
    assert (found.state, found.detail) == (seen, detail)
    site.says()
    assert states([folder])[0].state == ("stopped" if state == "stopped" else "failed")


def test_watch_goes_on_while_a_stopped_runs_job_is_in_the_queue(site, tmp_path):
    folder = submitted(tmp_path / "a" / "b" / "seed0", "stopped")
    site.says("10|PENDING|BeginTime")
    flock = Flock()
    flock.look([folder])
    assert not flock.ended and flock.runs[0].state.state == "requeued"
    site.says()
    flock._asked = (frozenset(), 0.0)  # as after its pause between questions
    flock.look([folder])
    assert flock.ended and flock.runs[0].state.state == "stopped"


def test_retry_leaves_what_the_queue_holds_and_says_what_it_would_take(site, tmp_path, capsys):
    held, left = (
        submitted(tmp_path / "a" / name / "seed0", "stopped", job=job)
        for name, job in (("h", "10"), ("l", "11"))
    )
    site.says("10|PENDING|BeginTime")
    assert after(["retry", "--trust", str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == (
        f"No run failed. 1 is stopped: python -m experiments retry --stopped "
        f"--trust {tmp_path / 'a'} {tmp_path / 'a'}\n"
    )
    assert after(["retry", "--trust", str(tmp_path / "a"), "--stopped", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    # What it prints works: the folder that was given, not one that holds nothing but SLURM's files.
    assert f"Submitted as 1. python -m experiments status {tmp_path / 'a'}\n" in said
    assert (submission(held) or {})["job"] == "10" and (submission(left) or {})["job"] == "1"
    assert after(["status", str(tmp_path / "a")]) == 0


def test_two_commands_at_once_submit_a_run_once(site, tmp_path):
    """The lock in the run's folder is held from squeue to the job's number."""
    folder = submitted(tmp_path / "a" / "b" / "seed0", "stopped", job=None)
    config = compose([]).config
    assert config is not None
    frozen = []
    pending = Pending(folder, config, lambda: frozen.append(1))
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(submit([pending], {}, "zo-s", tmp_path / "slurm")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.submissions.read_text().splitlines()) == 1 == len(frozen)
    assert sorted(len(each.elsewhere) for each in made) == [0, 1]
    assert made[0].refused == made[1].refused == [] and not (folder / LOCK).exists()
    # Later the lock is free, and the queue holds the job.
    again = submit([pending], {}, "zo-s", tmp_path / "slurm")
    assert again.elsewhere == [folder] and len(site.submissions.read_text().splitlines()) == 1


def test_a_squeue_that_does_not_answer_submits_nothing(site, tmp_path, capsys):
    folder = submitted(tmp_path / "a" / "b" / "seed0", "stopped")
    site.program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ConfigError, match="squeue does not answer"):
        with_jobs([folder])
    assert after(["retry", "--trust", str(tmp_path / "a"), "--stopped", str(folder)]) == 2
    assert "squeue does not answer" in capsys.readouterr().err
    assert site.submissions.read_text() == "" and states([folder])[0].state == "stopped"


def test_what_sbatch_refuses_is_printed_once(site, tmp_path, capfd):
    site.program(
        "sbatch",
        "echo 'sbatch: error: Batch job submission failed: Requested node configuration is not available' >&2; exit 1",
    )
    folder = submitted(tmp_path / "a" / "b" / "seed0", "failed", job=None)
    assert after(["retry", "--trust", str(tmp_path / "a"), str(folder)]) == 2
    said = capfd.readouterr()
    assert (said.err + said.out).count("Requested node configuration is not available") == 1
    assert "not submitted: sbatch" in states([folder])[0].detail


@pytest.mark.parametrize(("there", "lacks"), [((), "sbatch"), (("sbatch",), "srun")])
def test_a_machine_without_slurms_programs_is_told_before_anything_is_written(
    small, tmp_path, monkeypatch, capsys, there, lacks
):
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["-m", *small("launcher=slurm", "seed=0,1")]) == 2
    assert f"launcher=slurm needs {lacks}" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_shows_what_sbatch_would_get(small, tmp_path, capsys):
    """Every process of a run has GPUs and memory of its own."""
    more = small("launcher=slurm", "cluster.tasks=4", "cluster.nodes=2", "cluster.gpus=2", "cluster.mem=48",
                 "cluster.minutes=7", "seed=0,1")  # fmt: skip
    assert main(["-m", *more, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 jobs of 2 nodes of 4 tasks; a node gives 8 GPUs and 192 GB of memory (2 and 48 a task)" in said
    for line in (
        "--gpus-per-node=8",
        "--mem=192GB",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--array=0-1%2",
        "--time=7",
    ):
        assert f"#SBATCH {line}\n" in said
    assert not (tmp_path / "runs").exists()


def test_several_tasks_on_one_named_device_are_refused(small, capsys):
    assert main([*small("launcher=slurm", "cluster.tasks=2", "model.device=cuda:0"), "--dry-run"]) == 2
    assert "so all cluster.tasks=2 processes of a node would use the same ones" in capsys.readouterr().err


def test_what_nobody_will_start_waits_and_its_command_is_said(tmp_path, capsys):
    """A pool that is gone leaves runs that its files call queued."""
    script = (
        "import json; from experiments.rundir.lock import this_process; print(json.dumps(this_process()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    local = {"name": "local", "parallel": 2, "threads": None}
    gone = submitted(
        tmp_path / "a" / "x" / "seed0", "queued", job=None, launch=local, by=json.loads(done.stdout)
    )
    mine = submitted(tmp_path / "a" / "y" / "seed0", "queued", job=None, launch=local, by=this_process())
    assert [each.state for each in states([gone, mine])] == ["waiting", "queued"]
    assert command_of(gone) == "python launch.py -m seed=0,1"
    for command in (["watch", str(gone)], ["status", str(gone)]):
        assert after(command) == 0
        said = capsys.readouterr().out
        assert (
            "1 run waits, and no process will start what waits" in said
            and "  python launch.py -m seed=0,1\n" in said
        )
    assert after(["retry", str(tmp_path / "a")]) == 0
    assert "1 is waiting: python -m experiments retry --stopped" in capsys.readouterr().out


def test_a_run_that_others_are_at_makes_a_second_sweep_say_so(small, tmp_path, capsys):
    """`pool && report` must not report a sweep that is not whole."""
    from experiments.launching.check import Asked, check
    from experiments.launching.plan import plan

    words = small("optimizer=mezo", "seed=0")
    made, _ = plan(check(Asked(words)))
    assert made is not None
    folder = RunFolder(made.runs[0].folder)
    folder.write_status("running")
    with folder.locked():
        assert main(["-m", *words]) == BUSY
        said = capsys.readouterr().out
        assert (
            "1 of these runs is at work in other processes and not over" in said and str(folder.path) in said
        )
        # A worker that finds its run held ends, before it loads a model.
        folder.write("submission.json", {"cwd": os.getcwd(), "code": "."})
        assert work(folder.path) == BUSY
    assert f"Process {os.getpid()}" in capsys.readouterr().err


def test_dev_is_told_of_a_run_that_ended_and_why_one_diverged():
    """Test is no number to choose settings by, so nothing that lists runs shows it."""
    result = {"metric": "accuracy", "best_dev": 0.625, "after": 0.9, "reason": None}
    assert outcome_of(result) == "dev accuracy 62.5 %"
    assert outcome_of(result | {"best_dev": None}) == ""
    assert outcome_of(result | {"reason": "Step 7: a loss is nan."}) == "Step 7: a loss is nan."


def test_a_lock_is_free_after_its_holder(tmp_path):
    with Lock(tmp_path / LOCK):
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()
