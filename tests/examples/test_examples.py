"""The scripts of examples/ run as a reader would run them, learn, and stay short enough to read."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from experiments.world.grammar import examples

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "experiments/world/tiny-clm"
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def output(*words: object, before: tuple[str, ...] = ()) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *before, *map(str, words)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_flat_and_needs_no_runner(script):
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert "experiments" not in text


@pytest.mark.slow
def test_classification_learns(tmp_path):
    splits = {"train": examples("sentiment", "train", 400, 0), "dev": examples("sentiment", "test", 200, 0)}
    for name, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    files = ("--train", tmp_path / "train.jsonl", "--dev", tmp_path / "dev.jsonl")
    printed = output("examples/classification.py", "--model", MODEL, *files, "--steps", 60)
    before, after = (float(share) for share in re.findall(r"([\d.]+)%", printed))
    assert before < 60 and after > 90  # the world's classes are separable; chance is 50 %
    assert "after 540 forward passes" in printed


@pytest.mark.slow
def test_a_convolutional_network_learns_digits():
    printed = output("examples/vision.py", "--steps", 300)
    fzoo, mezo = (float(share) for share in re.findall(r"([\d.]+)%", printed))
    assert fzoo > 40 and mezo > 15  # ten classes: chance is 10 %
    assert printed.count("2700 forward passes") == 2


@pytest.mark.slow
def test_a_reward_rises():
    words = ("delightful", "marvellous", "beautiful", "touching", "lovely", "fresh", "funny")
    prompt = ("--prompts", "The Spanish drama was really", "--words", *words)
    rewards = [
        float(number)
        for number in re.findall(
            r"reward -?([\d.]+)", output("examples/reward.py", "--model", MODEL, *prompt, "--steps", 61)
        )
    ]
    assert rewards[-1] > rewards[0] + 0.2


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one(tmp_path):
    script = "examples/processes.py"
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    one = output(script, "--journal", tmp_path / "one", "--steps", 40)
    two = output(script, "--journal", tmp_path / "two", "--steps", 40, before=torchrun)
    assert one.splitlines()[-1] == two.splitlines()[-1]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    resumed = output(script, "--journal", tmp_path / "two", "--steps", 40)  # replays what two processes did
    assert resumed.splitlines()[-1] == one.splitlines()[-1]


@pytest.mark.slow
def test_transformers_trainer_learns_and_a_finished_run_keeps_its_bits(tmp_path):
    parts: tuple[tuple[Literal["train", "dev"], int], ...] = (("train", 200), ("dev", 60))
    for name, count in parts:
        rows = examples("sentiment", name, count, 0)
        lines = [f"{row['sentence']} It was {('terrible', 'great')[row['label']]}\n" for row in rows]
        (tmp_path / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    files = ("--train", tmp_path / "train.txt", "--dev", tmp_path / "dev.txt", "--out", tmp_path / "out")
    command = ("examples/trainer.py", "--model", MODEL, *files, "--steps", 120, "--lr", "1e-2")
    printed = output(*command)
    before, after = (float(loss) for loss in re.findall(r"loss ([\d.]+)[,\n]", printed))
    assert after < before - 0.1  # the model knows the sentences; what it learns is that a label word follows
    again = output(*command)
    assert "before" not in again and again.splitlines()[-1] == printed.splitlines()[-1]
    assert "Trained by FZOO of zo" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
