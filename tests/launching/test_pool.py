"""Sweeps that run here, in processes of their own."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.__main__ import main as after
from experiments.commands.launch import main
from experiments.launching.check import Asked, check
from experiments.launching.plan import plan
from experiments.launching.pool import ACKNOWLEDGED, Devices, environment
from experiments.launching.states import states
from experiments.launching.submission import command_of, freeze_run
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import Lock, this_process
from tests.launching.conftest import SMALL

ROOT = Path(__file__).parents[2]


def results(folder: Path) -> dict[str, dict]:
    return {str(path.parent): json.loads(path.read_text()) for path in folder.rglob("result.json")}


def test_devices_are_given_to_one_run_at_a_time():
    devices = Devices(["0", "1", "2"])
    first, second = devices.take(2), devices.take(1)
    assert (first, second, devices.take(0)) == (["0", "1"], ["2"], [])
    devices.give(second)
    assert devices.take(1) == ["2"]


@pytest.mark.slow
def test_a_sweep_runs_grows_and_survives_a_run_that_fails(small, tmp_path, capsys):
    runs = tmp_path / "runs"
    shutil.copytree(ROOT / "experiments" / "world" / "tiny-clm", tmp_path / "model")
    sweep = small("optimizer=mezo", f"model.path={tmp_path / 'model'}", "launcher.parallel=2")
    assert main(["-m", *sweep, "seed=0,1"]) == 0
    first = results(runs)
    stamps = {folder: Path(folder, "result.json").stat().st_mtime_ns for folder in first}
    assert [result["status"] for result in first.values()] == ["finished", "finished"]
    # What one command runs alone is the same run, with the same bits.
    assert main([*sweep[:-1], "seed=0"]) == 0
    assert "has ended already" in capsys.readouterr().out
    # A folder that cannot be written to makes one run fail; the other new one runs, the old ones are left alone.
    (broken,) = {Path(folder).parent / "seed2" for folder in first}
    broken.mkdir()
    (broken / "journal").mkdir()
    assert main(["-m", *sweep, "seed=0,1,2,3", "--name", "grown"]) == 1
    said = capsys.readouterr().out
    assert "4 runs, 2 to do, 2 done" in said and "1 of 2 runs ended, 1 failed" in said
    assert json.loads((broken / "status.json").read_text())["state"] == "failed"
    assert "Traceback" in (broken / "log.txt").read_text()
    assert len(results(runs)) == 3
    assert {folder: Path(folder, "result.json").stat().st_mtime_ns for folder in first} == stamps
    listed = json.loads((runs / "sweeps" / "grown" / "sweep.json").read_text())
    assert len(listed["runs"]) == 4


@pytest.mark.slow
def test_ctrl_c_ends_every_run_at_a_step_and_the_same_command_goes_on(tmp_path):
    runs = tmp_path / "runs"
    command = [sys.executable, str(ROOT / "launch.py"), "-m", *SMALL, "optimizer=mezo", "seed=0,1,2",
               "launcher.parallel=2", f"paths.runs={runs}"]  # fmt: skip
    process = subprocess.Popen([*command, "budget.steps=20000"], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    while len([p for p in runs.glob("default/*/*/*/metrics.jsonl") if p.stat().st_size]) < 2:
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    said, acknowledged = process.communicate(timeout=100)
    assert process.returncode == 130 and "Rerun the same command to resume" in said
    assert acknowledged == f"\n{ACKNOWLEDGED}\n"
    assert "[1/3] seed=0 started" in said and "optimizer" not in said.partition("[1/3]")[2].partition("\n")[0]
    found = {each.state: each for each in states([path.parent for path in runs.rglob("status.json")])}
    assert sorted(found) == ["stopped", "waiting"]
    assert found["stopped"].detail == "SIGINT"  # what happened, though the pool handed it on


@pytest.mark.slow
def test_what_is_edited_after_submission_changes_no_queued_run(small, tmp_path):
    """A copy of the project submits; then its defaults, its optimizer and its command line are broken."""
    copy = tmp_path / "project"
    for part in ("zo", "experiments", "conf", "launch.py"):
        source = ROOT / part
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, copy / part, ignore=ignore) if source.is_dir() else shutil.copy(source, copy)
    script = (
        "from experiments.launching import code_snapshot\n"
        "from experiments.launching.plan import plan\n"
        "from experiments.launching.check import Asked, check\n"
        "from experiments.launching.submission import freeze_run\n"
        "from experiments.launching.pool import command, environment\n"
        "from pathlib import Path\n"
        "import json, sys\n"
        "made, _ = plan(check(Asked(sys.argv[1:])))\n"
        "(run,) = made.runs\n"
        "freeze_run(run, code_snapshot.freeze(made.runs_folder), made.launcher, made.cluster)\n"
        "print(json.dumps([command(run.folder), environment(run.folder), str(run.folder)]))\n"
    )
    plain = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "-P", "-c", script, *small("optimizer=mezo")], cwd=copy, env=plain,
                          capture_output=True, text=True, check=True)  # fmt: skip
    command, environment, folder = json.loads(done.stdout.splitlines()[-1])
    for path in (
        "zo/optimizers/mezo.py",
        "experiments/training/run.py",
        "conf/config.yaml",
        "conf/optimizer/mezo.yaml",
    ):
        (copy / path).write_text("this is no longer what it was(")
    ran = subprocess.run(command, cwd=copy, env={**plain, **environment}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    provenance = json.loads((Path(folder) / "provenance.json").read_text())
    assert json.loads((Path(folder) / "result.json").read_text())["status"] == "finished"
    assert provenance["commit"] is None  # a copy without git


@pytest.mark.slow
def test_a_closed_terminal_ends_every_run_at_a_step_as_sigterm_does(tmp_path):
    """The kernel sends SIGHUP to the pool alone, for runs have sessions of their own; nothing is left behind."""
    runs = tmp_path / "runs"
    command = [sys.executable, str(ROOT / "launch.py"), "-m", *SMALL, "optimizer=mezo", "seed=0,1,2",
               "launcher.parallel=2", "budget.steps=20000", f"paths.runs={runs}"]  # fmt: skip
    pid, master = pty.fork()  # a session with a terminal of its own
    if not pid:
        os.chdir(ROOT)
        os.execv(sys.executable, command)
    reading = threading.Thread(target=_drain, args=(master,), daemon=True)
    reading.start()
    while len([p for p in runs.glob("default/*/*/*/metrics.jsonl") if p.stat().st_size]) < 2:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(0.2)
    locks = [json.loads(path.read_text()) for path in runs.rglob("lock") if path.stat().st_size]
    os.kill(pid, signal.SIGHUP)  # of the shell, that ends
    os.kill(pid, signal.SIGHUP)  # of the kernel, when the terminal is gone
    _, code = os.waitpid(pid, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(code) == 0
    assert locks and not any(Path(f"/proc/{lock['pid']}").exists() for lock in locks)
    found = states([path.parent for path in runs.rglob("status.json")])
    assert sorted(each.state for each in found) == ["stopped", "stopped", "waiting"]
    assert {each.detail for each in found if each.state == "stopped"} == {"SIGHUP"}
    assert all(each.steps is not None for each in found if each.state == "stopped")
    (waits,) = [each.folder for each in found if each.state == "waiting"]
    assert "launch.py -m" in (command_of(waits) or "")  # what status prints


def _drain(master: int) -> None:
    with suppress(OSError):
        while os.read(master, 1 << 16):
            pass


def test_a_run_that_goes_on_without_its_sweep_is_said_to(tmp_path):
    script = (
        "import json; from experiments.rundir.lock import this_process; print(json.dumps(this_process()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    folder = RunFolder(tmp_path / "seed0")
    folder.write_config({"seed": 0})
    folder.write_status("running")
    folder.write("submission.json", {"by": json.loads(done.stdout), "launch": {"name": "local"}})
    with Lock(folder.path / "lock"):
        (alone,) = states([folder.path])
        assert alone.state == "running" and "the sweep that started it is gone" in alone.detail
        folder.write("submission.json", {"by": this_process(), "launch": {"name": "local"}})
        (held,) = states([folder.path])
        assert "is gone" not in held.detail


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped(small, tmp_path, capsys):
    pytest.importorskip("optuna")
    words = ["-m", *small("optimizer=mezo", "optimizer.lr=tag(log,interval(1e-6,1e-3))", "optimizer.eps=1e-3,1e-2",
                          "launcher.parallel=2", "save=false"), "--name", "lr"]  # fmt: skip
    assert main([*words, "--trials", "2"]) == 0
    first = results(tmp_path / "runs")
    assert main([*words, "--trials", "3"]) == 0
    after = results(tmp_path / "runs")
    assert len(first) == 2 and len(after) == 3 and first.items() <= after.items()
    said = capsys.readouterr().out
    assert "3 trials; the best on dev" in said
    # One line of the whole search after each batch, not a count of each trial's runs.
    assert "Search: 2 of 2 trials, best dev " in said and "Search: 3 of 3 trials, best dev " in said
    assert "runs ended" not in said
    assert said.strip().splitlines()[-1].startswith("optimizer.lr=")
    assert main([*words, "--trials", "3"]) == 0
    assert len(results(tmp_path / "runs")) == 3


@pytest.mark.slow
def test_a_search_begins_again_when_it_is_asked_to(small, tmp_path, capsys):
    pytest.importorskip("optuna")
    words = ["-m", *small("optimizer=mezo", "optimizer.eps=1e-3,1e-2"), "--name", "eps", "--trials", "1"]
    for more, steps in (["--smoke"], 1), ([], 3), (["--rerun"], 3):
        for _ in range(2 if more else 1):
            began = time.time()
            assert main([*words, *more]) == 0
            assert capsys.readouterr().out.count("1 trials; the best on dev") == 1
            new = [p for p in (tmp_path / "runs").rglob("result.json") if p.stat().st_mtime >= began]
            assert [json.loads(path.read_text())["steps"] for path in new] == [steps]
    assert len(results(tmp_path / "runs")) == 2  # the smoke's, and the one that was run again


@pytest.mark.slow
def test_a_run_that_was_cancelled_in_the_queue_is_run_by_the_same_command(small, tmp_path, capsys):
    command = [*small("optimizer=mezo"), "--name", "n"]
    made, _ = plan(check(Asked(command[:-2])))
    assert made is not None
    freeze_run(made.runs[0], tmp_path, made.launcher, made.cluster)
    assert after(["cancel", str(made.runs[0].folder)]) == 0
    assert main(command) == 0
    assert "1 of 1 runs ended" in capsys.readouterr().out


def test_a_run_has_the_users_modules_behind_its_frozen_code(small, tmp_path, monkeypatch):
    """PYTHONPATH as it was at submission, with relative folders made absolute; a job has it too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"mine{os.pathsep}/other")
    made, problems = plan(check(Asked(small("optimizer=mezo"))))
    assert made is not None, problems
    freeze_run(made.runs[0], tmp_path / "code", made.launcher, made.cluster)
    paths = environment(made.runs[0].folder)["PYTHONPATH"]
    assert paths == os.pathsep.join([str(tmp_path / "code"), str(tmp_path / "mine"), "/other"])


@pytest.mark.slow
def test_a_module_of_one_file_is_a_target_of_a_sweep(small, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from zo.optimizers import MeZO\n\n\nclass Mine(MeZO):\n    pass\n", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["-m", *small("optimizer=mezo", "optimizer._target_=mine.Mine", "seed=0,1")]) == 0
    assert {result["method"] for result in results(tmp_path / "runs").values()} == {"mine"}


def test_modules_beside_launch_py_are_frozen_with_it(tmp_path):
    from experiments.launching import code_snapshot

    (tmp_path / "zo").mkdir()
    for name in ("launch.py", "mine.py", "zo/a.py"):
        (tmp_path / name).touch()
    assert {path.as_posix() for path in code_snapshot.files(tmp_path)} == {"launch.py", "mine.py", "zo/a.py"}


@pytest.mark.slow
def test_a_terminal_shows_a_line_a_run_and_answers_ctrl_c_at_once(small, tmp_path):
    """Overrides as typed, steps, dev and the time of all; test is no number to choose by, and is not shown."""
    pytest.importorskip("pyte")
    from tests.watching.terminal import Terminal

    words = ["-m", *small("optimizer=mezo", "optimizer.lr=1e-5,1e-6", "budget.steps=100000", "stop.every=20")]
    terminal = Terminal(lambda: main(words), columns=120, lines=30)
    shown = terminal.until(r"optimizer.lr=1e-05? +running.*(\n.*)*optimizer.lr=.* +queued", seconds=200)
    assert "[1/2] optimizer.lr=1e-" in shown and "step" in shown
    terminal.until(r"\d+\.\d / \d+\.\d(.*\n)*.*ETA of all", seconds=200)
    terminal.press("\x03")
    terminal.until("Every run stops after its step; Ctrl-C again ends all at once", seconds=20)
    assert terminal.ended(200) == 130
    assert terminal.sane and "Stopped (SIGINT)" in terminal.shown
