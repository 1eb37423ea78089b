"""Wrong input: a sentence that names the key or the file, exit code 2, nothing half-written."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import experiments.training.session
from experiments.commands.launch import main
from experiments.config.compose import compose

ROOT = Path(__file__).parents[2]
TINY = ROOT / "experiments" / "world" / "tiny-clm"


def refused(runs, capsys, *overrides: str) -> str:
    """What a refused command prints; nothing may have been written."""
    assert main(runs.arguments(*overrides)) == 2
    assert not runs.folder.exists() or not list(runs.folder.rglob("journal"))
    captured = capsys.readouterr()
    return captured.err + captured.out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.epz=1"], ["optimizer.epz", "optimizer.eps"]),
        (["optimizr=fzoo"], ["optimizr", "optimizer"]),
        (["optimizer=fzo"], ["fzo", "fzoo"]),
        (["batch.size=many"], ["batch.size", "many"]),
        (["batch.size=0"], ["batch.size", "1"]),
        (["optimizer.eps=0"], ["optimizer.eps", "above 0"]),
        (["optimizer.n=1"], ["optimizer.n", "at least 2"]),
        (["optimizer.lr=-1"], ["optimizer.lr", "at least 0"]),
        (["budget.forward_passes=3"], ["budget.forward_passes", "9"]),
        (["model.path=/nowhere"], ["/nowhere"]),
        (["task=sst2", "task.data_dir=/nowhere"], ["/nowhere"]),
        (["select=best", "task.dev=0"], ["select", "task.dev"]),
        (["schedule.warmup=1.5"], ["schedule.warmup", "at least 0 and below 1"]),
    ],
)
def test_named_and_explained(runs, capsys, overrides, said):
    message = refused(runs, capsys, *overrides)
    assert [word for word in said if word not in message] == [], message


def test_all_problems_in_one_list(runs, capsys):
    message = refused(runs, capsys, "optimizer.epz=1", "batch.size=0", "model=tiny-cml")
    assert all(word in message for word in ("optimizer.epz", "batch.size", "tiny-clm")), message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.device=cuda:99"], ["model.device=cuda:99", "CUDA device", "cpu or auto"]),
        (["model.device_map={lm_head: 99}"], ["model.device_map", "lm_head is to be on GPU 99"]),
        pytest.param(
            ["model.device=cuda"],
            ["model.device=cuda", "no CUDA device"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
        ),
    ],
)
def test_a_gpu_that_is_not_there_is_listed_before_model_and_data_are_loaded(
    runs, capsys, monkeypatch, overrides, words
):
    def loads(*_, **__):
        raise AssertionError("something was loaded")

    for name in ("locate", "check_model", "load", "load_task"):
        monkeypatch.setattr(experiments.training.session, name, loads)
    message = refused(runs, capsys, *overrides, "budget.forward_passes=3")
    assert [word for word in [*words, "budget.forward_passes"] if word not in message] == [], message


def test_what_is_no_device_is_listed_without_torch(runs, capsys):
    message = refused(runs, capsys, "model.device=gpu", "batch.size=0")
    assert all(word in message for word in ("model.device=gpu", "cuda:<index>", "batch.size")), message


def test_a_plan_may_name_gpus_of_another_machine():
    """A login node has none, and the runs are started elsewhere."""
    config = compose(["model.device=cuda:99", "budget.steps=7"]).config
    assert config is not None and experiments.training.session.steps_of(config) == 7


def write_rows(folder: Path, rows: Sequence[object]) -> Path:
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(
            "".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows)
        )
    return folder


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"sentence": "fine", "label": 1}, "no json\n"], ["train.jsonl", "2"]),
        ([{"text": "fine", "label": 1}], ["sentence", "text", "task.columns"]),
        ([{"sentence": "fine", "label": 7}], ["label", "7"]),
        ([], ["train.jsonl"]),
    ],
)
def test_data_that_do_not_fit(runs, capsys, tmp_path, rows, said):
    folder = write_rows(tmp_path / "data", rows)
    message = refused(runs, capsys, "task=sst2", f"task.data_dir={folder}")
    assert [word for word in said if word not in message] == [], message


QUIZ = {"question": "What burns?", "choices": ["wood", "sand"], "label": 0}
OWN = (
    "task=sst2", "task.options=null", "task.candidates=choices",
    "task.columns={question: question, choices: choices, label: label}",
    'task.templates.causal.prompt="{question}"', 'task.templates.causal.answer=" {option}"',
)  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"choices": []}, ["train.jsonl:2", "choices is empty", "options to choose from"]),
        ({"choices": ["wood", " "]}, ["train.jsonl:2", "number 1 of choices is empty"]),
        ({"choices": "wood"}, ["train.jsonl:2", "must be a list of texts"]),
        ({"label": 5}, ["train.jsonl:2", "label 5 is not among the 2 candidates"]),
        ({"label": "rain"}, ["train.jsonl:2", "'rain' is not among the 2 candidates"]),
    ],
)
def test_candidates_that_cannot_be_chosen_from(runs, capsys, tmp_path, wrong, said):
    folder = write_rows(tmp_path / "data", [QUIZ, {**QUIZ, **wrong}])
    message = refused(runs, capsys, *OWN, f"task.data_dir={folder}")
    assert [word for word in said if word not in message] == [], message


def test_every_wrong_row_is_told_at_once(runs, capsys, tmp_path):
    rows = [{**QUIZ, "choices": []}, {**QUIZ, "label": 9}, QUIZ, {**QUIZ, "question": None}]
    message = refused(runs, capsys, *OWN, f"task.data_dir={write_rows(tmp_path / 'data', rows)}")
    assert all(f"train.jsonl:{number}" in message for number in (1, 2, 4)), message
    assert "train.jsonl:3" not in message


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_missing_split(runs, capsys, tmp_path, split):
    folder = write_rows(tmp_path / "data", [{"sentence": "fine", "label": 1}] * 9)
    (folder / f"{split}.jsonl").unlink()
    message = refused(runs, capsys, "task=sst2", f"task.data_dir={folder}")
    assert f"has no {split}.jsonl" in message and "it holds" in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.k=5"], ["task.k=5", "terrible 4", "great 4"]),
        (
            ["optimizer=none", "task.demonstrations=7"],
            ["task.demonstrations=7", "train has 4 examples to show"],
        ),
        (["task.dev=8", "task.dev_share=1.0"], ["none is left to train on", "task.dev"]),
    ],
)
def test_more_shots_than_examples(runs, capsys, tmp_path, overrides, said):
    folder = write_rows(tmp_path / "data", [{"sentence": f"fine {i}", "label": i % 2} for i in range(8)])
    message = refused(
        runs, capsys, "task=sst2", f"task.data_dir={folder}", "task.train=4", "task.dev=4", *overrides
    )
    assert [word for word in said if word not in message] == [], message


def test_labels_outside_the_list_are_told_row_by_row(runs, capsys, tmp_path):
    rows = [{"sentence": "fine", "label": label} for label in ("pos", "neg", "mixed", "neutral")]
    folder = write_rows(tmp_path / "data", rows)
    message = refused(runs, capsys, "task=sst2", f"task.data_dir={folder}", "task.labels=[neg,pos]")
    assert (
        "train.jsonl:3" in message
        and "train.jsonl:4" in message
        and "task.labels has 'neg', 'pos'" in message
    )


def test_several_mistakes_of_a_task_are_told_at_once(runs, capsys):
    message = refused(
        runs, capsys, "task=squad", "task.metric=accuracy", "task.objective=options", "task.k=4"
    )
    assert all(word in message for word in ("task.metric=accuracy", "task.objective=options", "task.k=4")), (
        message
    )


def test_template_with_an_unknown_field(runs, capsys, tmp_path):
    folder = write_rows(tmp_path / "data", [{"sentence": "fine", "label": 1}] * 40)
    message = refused(
        runs, capsys, "task=sst2", f"task.data_dir={folder}", 'task.templates.causal.prompt="{phrase} It was"'
    )
    assert "phrase" in message and "task.templates.causal.prompt" in message


def test_option_longer_than_the_context(runs, capsys, tmp_path):
    folder = write_rows(tmp_path / "data", [{"sentence": "fine", "label": i % 2} for i in range(40)])
    message = refused(runs, capsys, "task=sst2", f"task.data_dir={folder}", "task.max_length=2",
                      'task.options=["so very bad that one leaves","so very good that one stays"]')  # fmt: skip
    assert "so very" in message


def test_pickled_weights_are_refused(runs, capsys, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refused(runs, capsys, f"model.path={folder}")
    assert "safetensors" in message and str(folder) in message


def test_folder_that_cannot_be_written(runs, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    process = runs.start()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot be written" in output and "paths.runs" in output and "Traceback" not in output


@pytest.mark.slow
def test_full_disk_leaves_the_journal_whole_and_the_run_goes_on_later(runs):
    """A limit on file sizes stands for the full disk: writes fail with an error in the middle of the run."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))

    short = ("budget.steps=80", "stop.every=80")
    arguments = runs.arguments(*short, "kernels=eager")
    process = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *arguments],
        cwd=ROOT, capture_output=True, text=True, preexec_fn=limited, timeout=300,
    )  # fmt: skip
    assert process.returncode == 1, process.stderr
    assert "could not be written" in process.stderr and "Traceback" not in process.stderr
    undisturbed = runs(*short, f"paths.runs={runs.folder.parent / 'other'}")
    assert undisturbed == {}
    result = runs(*short)
    other = json.loads(next((runs.folder.parent / "other").rglob("result.json")).read_text())
    assert result["last_sha256"] == other["last_sha256"]
