"""What is said before torch is imported is what the run proper would say."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.commands import preflight
from experiments.commands.launch import main
from experiments.config.compose import compose
from experiments.config.run_config import RunConfig
from experiments.rundir.folder import RunFolder

ROOT = Path(__file__).parents[2]
TINY = ROOT / "experiments" / "world" / "tiny-clm"
RESULT = {
    "status": "finished", "method": "fzoo", "model": "m", "task": "t", "peft": "none", "seed": 0, "metric": "accuracy",
    "before": 0.5, "after": 0.5, "steps": 3, "forward_passes": 27, "seconds": 1.0,
}  # fmt: skip
WITHOUT_TORCH = """
import sys
from experiments.commands.launch import main
code = main(sys.argv[1:])
assert not {"torch", "transformers", "datasets"} & set(sys.modules), "it was imported"
sys.exit(code)
"""


def config(*overrides: str) -> RunConfig:
    composed = compose([*overrides])
    assert composed.config is not None, composed.problems
    return composed.config


def alone(*overrides: str) -> tuple[int, str, float]:
    """The command in a process of its own, where torch must not be imported: exit code, output, seconds of CPU."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    took = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return done.returncode, done.stdout + done.stderr, took


def test_files_that_are_missing_are_told_at_once_and_without_torch(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"sentence": "fine", "label": 1}\n')
    wrong = ("task=sst2", f"task.data_dir={tmp_path / 'data'}", "model.path=/nowhere")
    record = ("optimizer=mezoswitch", f"optimizer.record={tmp_path / 'nope.json'}")
    code, said, took = alone(*wrong, *record, f"paths.runs={tmp_path}")
    assert code == 2 and "model.path=/nowhere" in said and "has no validation.jsonl" in said
    assert f"optimizer.record={tmp_path / 'nope.json'} cannot be read: No such file or directory." in said
    assert took < 2.0  # 0.8 where this was written; importing torch takes several
    assert not list(tmp_path.glob("default"))


def test_a_record_that_is_missing_is_told_without_a_traceback(tmp_path, capsys):
    for record in (tmp_path / "nope.json", tmp_path):  # a folder is no file
        assert main(["optimizer=mezoswitch", f"optimizer.record={record}", f"paths.runs={tmp_path}"]) == 2
        assert f"optimizer.record={record} cannot be read" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    for split in ("train", "validation"):
        rows = [json.dumps({"sentence": f"{split} {i}", "label": i % 2}) + "\n" for i in range(60)]
        (made / f"{split}.jsonl").write_text("".join(rows))
    return made


SMALL = ("task.train=16", "task.dev=8", "task.test=8", "batch.size=4")


@pytest.mark.parametrize(
    "overrides",
    [
        ("task=sentiment",),
        ("task=sentiment", "seed=3", "seeds.split=null"),
        ("task=entailment", "model=tiny-mlm", "seeds.split=null", "seed=2"),
        ("task=question",),
        ("task=question", "optimizer=none", "task.demonstrations=2"),
        ("task=sentiment", "optimizer=linear_probe"),
        ("task=sentiment", "optimizer.lr=1e-3", "peft=lora"),
        ("task=sst2", "task.data_dir=DATA"),
        ("task=sst2", "task.data_dir=DATA", "model=tiny-mlm", "task.k=4"),
        ("task=sst2", "task.data_dir=DATA", "task.calibrate=sfc", "optimizer=none"),
    ],
)  # fmt: skip
def test_the_folder_is_the_one_that_the_run_proper_takes(folder, tmp_path, overrides):
    from experiments.launching.plan import Planner

    said = [text.replace("DATA", str(folder)) for text in overrides]
    said += [f"paths.runs={tmp_path / 'runs'}"]
    made = config(*SMALL, *said)
    run = Planner().name(made, said)
    assert preflight.ended(made) is None
    ends = RunFolder(run.folder)
    ends.write_config(run.config.recorded())
    ends.write("result.json", RESULT)
    assert preflight.ended(made) == (RESULT, run.folder)
    # One that differs in anything that counts has not ended; what does not count changes nothing.
    assert preflight.ended(config(*SMALL, *said, "task.test=7")) is None
    assert preflight.ended(config(*SMALL, *said, "evaluate.batch=3")) is not None


def test_contents_count_and_not_their_places(folder, tmp_path):
    from experiments.launching.plan import Planner

    shutil.copytree(TINY, tmp_path / "model")
    rest = (*SMALL, "task=sst2", f"paths.runs={tmp_path / 'runs'}", "model.name=tiny-clm")
    made = config(*rest, f"task.data_dir={folder}", f"model.path={tmp_path / 'model'}")
    run = Planner().name(made, [])
    ends = RunFolder(run.folder)
    ends.write_config(run.config.recorded())
    ends.write("result.json", RESULT)
    moved = folder.rename(tmp_path / "moved")
    here = config(*rest, f"task.data_dir={moved}", f"model.path={TINY}")
    assert preflight.ended(here) is not None
    changed = (moved / "train.jsonl").read_text().replace("train 1", "other 1")
    (moved / "train.jsonl").write_text(changed)
    assert preflight.ended(here) is None
    damaged = run.folder / "config.yaml"
    (moved / "train.jsonl").write_text(changed.replace("other 1", "train 1"))
    assert preflight.ended(here) is not None
    damaged.write_text("a: [")
    assert preflight.ended(here) is None


def test_a_run_that_has_ended_is_shown_again_without_torch(runs):
    result = runs("budget.steps=2", "save=false")
    before = time.time()
    code, said, took = alone(*runs.arguments("budget.steps=2", "save=false"))
    assert code == 0 and "has ended already" in said and "fzoo on sentiment with tiny-clm: finished" in said
    assert took < 3.0
    assert (result["folder"] / "status.json").stat().st_mtime < before
