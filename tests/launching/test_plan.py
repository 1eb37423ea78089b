"""A planned run is the run: same name, same folder, same refusals, without its weights."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main as after
from experiments.commands.launch import main
from experiments.config.compose import compose
from experiments.launching import code_snapshot
from experiments.launching.check import Asked, check
from experiments.launching.plan import Planner, plan, unequal
from experiments.launching.submission import freeze_run, read_sweep, submission, write_sweep
from experiments.launching.worker import BUSY, work
from experiments.rundir.lock import Lock, holder_of
from experiments.training.session import build
from zo.errors import Locked

ROOT = Path(__file__).parents[2]
LOCAL = {"name": "local", "parallel": 1, "threads": None}


def planned(overrides):
    made, problems = plan(check(Asked(overrides)))
    assert problems == [] and made is not None
    return made.runs


@pytest.mark.parametrize(
    "more",
    [
        ["optimizer=fzoo"],
        ["optimizer=adamw", "peft=lora", "seeds.split=null", "seed=3"],
        ["model=tiny-mlm", "task=entailment", "optimizer=mezo"],
        ["optimizer=none", "task.demonstrations=2"],
        ["budget.forward_passes=100", "schedule=cosine"],
    ],
)
def test_name_and_folder_are_those_of_the_session(small, more):
    config = compose(small(*more)).config
    assert config is not None
    run, session = Planner().name(config, more), build(config)
    assert (run.hash, run.name, run.steps) == (session.hash, session.name, session.steps)


def test_a_moved_model_is_the_same_run_and_a_changed_one_another(small, tmp_path):
    ours = ROOT / "experiments" / "world" / "tiny-clm"
    for name in ("a", "b"):
        shutil.copytree(ours, tmp_path / name)
    first, second = (
        planned(small(f"model.path={tmp_path / name}", "model.name=m"))[0] for name in ("a", "b")
    )
    assert first.folder == second.folder
    with (tmp_path / "b" / "config.json").open("a") as file:
        file.write("\n")
    assert planned(small(f"model.path={tmp_path / 'b'}", "model.name=m"))[0].folder != first.folder


def test_ranges_and_data_are_refused_before_anything_starts(small, tmp_path, capsys):
    wrong = small("optimizer=mezo,fzoo", "optimizer.eps=0,1e-3", "task.max_length=1,64", "--dry-run")
    assert main(["-m", *wrong]) == 2
    said = capsys.readouterr().err
    for override in ("task.max_length=1", "optimizer.eps=0"):  # both are found before torch is imported
        assert re.search(rf"^  {override}\n.*\(4 of 8 runs\)$", said, re.MULTILINE)
    assert not (tmp_path / "runs").exists()


def test_equal_runs_are_one_and_sweeps_share_them(small, tmp_path):
    runs = planned(small("probes_per_forward=1,2", "seed=0,1"))
    assert [run.config.seed for run in runs] == [0, 1]
    more = planned(small("seed=0,1,2"))
    assert {run.folder for run in runs} < {run.folder for run in more}
    folder = write_sweep(tmp_path / "runs", "s", more, ["x"])
    assert read_sweep(folder) == [run.folder for run in more]


def test_a_dry_run_writes_nothing(small, tmp_path, capsys):
    assert main(["-m", *small("optimizer=mezo,fzoo"), "--dry-run"]) == 0
    assert "2 runs, 2 to do, 0 done" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written_is_a_message(small, capsys):
    assert main(["-m", *small("seed=0,1", "paths.runs=/proc/nope")]) == 1
    said = capsys.readouterr().err
    assert "cannot be written" in said and "paths.runs=FOLDER" in said


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="there is a SLURM here")
def test_what_no_estimate_can_be_made_of_is_said_and_goes_on(small, capsys):
    """The name of a module that is not there shows when adapters are attached, which planning does not do."""
    words = ["-m", *small("peft=lora", "peft.targets=[q_proj],[nowhere]", "optimizer.lr=1e-5,1e-6")]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("no layer is called nowhere") == 1 and "GPU-hours to do" not in said
    assert main([*words, "launcher=slurm"]) == 2
    assert "needs sbatch" in capsys.readouterr().err  # the submission, which is as far as it gets here


def test_a_smoke_is_taken_again(small, tmp_path, capsys):
    made, _ = plan(check(Asked(small("optimizer=mezo"), smoke=True)))
    assert made is not None
    (run,) = made.runs
    freeze_run(run, tmp_path, LOCAL, {})
    assert work(run.folder) == 0 and run.ended
    assert main([*small("optimizer=mezo"), "--smoke", "--dry-run"]) == 0
    assert "1 runs, 1 to do, 0 done" in capsys.readouterr().out


def test_lists_are_shown_as_they_are_written(small, capsys):
    targets = "peft.targets=[q_proj,v_proj]"
    assert main(["-m", *small("peft=lora", f"{targets},[q_proj]"), "--dry-run"]) == 0
    assert targets in capsys.readouterr().out


def test_the_job_runs_what_was_frozen(small, tmp_path, capsys):
    """In this process: the folder is all that `work` gets, and its config.yaml is what runs."""
    (run,) = planned(small("optimizer=mezo"))
    freeze_run(run, tmp_path, LOCAL, {})
    frozen = (run.folder / "config.yaml").read_text()
    assert json.loads((run.folder / "status.json").read_text())["state"] == "queued"
    assert work(run.folder) == 0
    assert (run.folder / "config.yaml").read_text() == frozen
    assert json.loads((run.folder / "result.json").read_text())["steps"] == 3
    # Another content than was submitted is refused, and the status says so.
    (other,) = planned(small("optimizer=mezo", "optimizer.lr=1e-5"))
    freeze_run(other, tmp_path, LOCAL, {})
    (other.folder / "config.yaml").write_text(frozen)
    assert work(other.folder) == 2
    status = json.loads((other.folder / "status.json").read_text())
    assert status["state"] == "failed" and "was submitted as" in status["error"]
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("launched", [True, False])
def test_a_run_that_was_cancelled_while_it_waited_is_run_by_the_same_command(small, tmp_path, launched):
    words = small("optimizer=mezo")
    (run,) = planned(words)
    freeze_run(run, tmp_path, LOCAL, {})
    assert after(["cancel", str(run.folder)]) == 0
    if launched:
        freeze_run(run, tmp_path, LOCAL, {})
        assert not (run.folder / "STOP").exists()  # the pool starts no run in which it lies
        assert work(run.folder) == 0
    else:
        assert main(words) == 0
    assert json.loads((run.folder / "result.json").read_text())["steps"] == 3


def test_the_second_process_in_a_folder_refuses_and_a_lock_left_behind_is_taken(small, tmp_path):
    (run,) = planned(small("optimizer=mezo"))
    freeze_run(run, tmp_path, LOCAL, {})
    path = run.folder / "lock"
    script = "import sys, time; from pathlib import Path; from experiments.rundir.lock import Lock\n" \
             "with Lock(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"  # fmt: skip
    holder = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"in\n"
        assert (holder_of(path) or {})["pid"] == holder.pid
        assert work(run.folder) == BUSY
        with pytest.raises(Locked, match=f"process {holder.pid}"):
            Lock(path).__enter__()
        assert json.loads((run.folder / "status.json").read_text())["state"] == "queued"
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert path.exists() and holder_of(path) is None
    with Lock(path):
        assert (holder_of(path) or {})["pid"] == os.getpid()
    assert not path.exists()


def test_a_snapshot_holds_the_working_tree_and_is_named_by_its_content(tmp_path):
    root = tmp_path / "tree"
    (root / "zo").mkdir(parents=True)
    (root / "zo" / "a.py").write_text("1")
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    (root / "zo" / "a.py").write_text("2")  # changed
    (root / "zo" / "new.py").write_text("3")  # not yet added
    first = code_snapshot.freeze(tmp_path / "runs", root)
    assert [(first / "zo" / name).read_text() for name in ("a.py", "new.py")] == ["2", "3"]
    record = json.loads((first / code_snapshot.RECORD).read_text())
    assert record["dirty"] and "+2" in record["diff"]
    assert code_snapshot.freeze(tmp_path / "runs", root) == first
    (root / "zo" / "a.py").write_text("4")
    assert code_snapshot.freeze(tmp_path / "runs", root) != first
    assert (first / "zo" / "a.py").read_text() == "2"
    assert submission(first) is None


def test_methods_that_get_unequal_forward_passes_are_told_apart(small):
    """A budget of steps gives FZOO 9 passes for MeZO's 2; one of forward passes gives each as many as the other."""
    words = unequal(planned(small("optimizer=mezo,fzoo", "seed=0,1")))
    assert words is not None and "mezo 6, fzoo 27" in words and "budget.forward_passes=27" in words
    assert unequal(planned(small("optimizer=mezo,fzoo", "budget.forward_passes=90"))) is None
    assert unequal(planned(small("optimizer=mezo", "budget.steps=3,6"))) is None  # one method, as was asked
    assert unequal(planned(small("optimizer=mezo,none"))) is None


def test_saved_code_follows_the_umask(tmp_path):
    (tmp_path / "tree" / "zo").mkdir(parents=True)
    (tmp_path / "tree" / "zo" / "a.py").write_text("1")
    before = os.umask(0o027)
    try:
        assert code_snapshot.freeze(tmp_path / "runs", tmp_path / "tree").stat().st_mode & 0o777 == 0o750
    finally:
        os.umask(before)


def test_a_sweep_over_seeds_that_change_nothing_says_so_before_it_starts(small, capsys):
    words = ["-m", *small("optimizer=mezo,adamw,none", "seed=0,1"), "--dry-run"]
    assert main([*words, "seeds.split=0", "seeds.order=0"]) == 0
    said = capsys.readouterr().out
    for method, fixed, more in (
        ("adamw", "seeds.split=0, seeds.test=0, seeds.order=0", "order"), ("zeroshot", "seeds.test=0", "test"),
    ):  # fmt: skip
        assert (
            f"seed=0,1 changes nothing for {method} on sentiment: all that it draws is fixed ({fixed}), so these 2 "
            f"runs are one. Give one seed, or seeds.{more}=null."
        ) in said
    assert "for mezo" not in said and said.index("changes nothing") < said.index("6 runs, 6 to do")
    assert main(words) == 0
    assert "for adamw" not in capsys.readouterr().out


def test_a_sweep_at_which_another_process_is_does_not_claim_to_be_done(small, capsys):
    """`launch.py -m … && report` would report an unfinished sweep."""
    words = small("optimizer=mezo")
    (run,) = planned(words)
    run.folder.mkdir(parents=True)
    with Lock(run.folder / "lock"):
        assert main(["-m", *words]) == BUSY
    assert "1 running or waiting elsewhere" in " ".join(capsys.readouterr().out.split())
