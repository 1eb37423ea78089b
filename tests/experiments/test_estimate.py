"""What a run is estimated to need: published counts, closed forms, and memory as measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.config.compose import compose
from experiments.estimating import Estimate, estimate
from experiments.estimating.memory import weight_bytes
from experiments.estimating.run_cost import GPU_BYTES
from experiments.models.shapes import skeleton

# Parameters as published; bytes in the dtype of conf/model.
PUBLISHED = {
    "roberta-large": (355_412_057, 4),
    "opt-1.3b": (1_315_758_080, 2),
    "opt-13b": (12_853_473_280, 2),
    "llama-3-8b": (8_030_261_248, 2),
    "mistral-7b": (7_241_732_096, 2),
    "phi-2": (2_779_683_840, 2),
    "qwen3-8b": (8_190_735_360, 2),
    "gemma-3-1b": (999_885_952, 2),
}


def reckoned(*overrides: str, tokens: int | None = None) -> Estimate:
    composed = compose(overrides)
    assert composed.config is not None, composed.problems
    return estimate(composed.config, tokens=tokens)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_bytes_are_the_published_ones(name):
    composed = compose([f"model={name}", "task=sst2"])
    assert composed.config is not None
    loaded = skeleton(composed.config.model, 2)
    count, size = PUBLISHED[name]
    assert sum(p.numel() for p in loaded.model.parameters()) == count
    # Buffers, such as RoPE's frequencies, come on top.
    assert count * size <= weight_bytes(loaded, None) < 1.001 * count * size


@pytest.mark.slow
def test_what_optimizers_keep_is_a_multiple_of_the_trained_weights():
    base = ("model=opt-125m", "model.dtype=float16", "task=sst2")
    of = {name: reckoned(*base, f"optimizer={name}") for name in ("mezo", "adamw")}
    assert of["adamw"].moments == 2 * 4 * of["adamw"].trained
    assert of["adamw"].masters == of["adamw"].gradients == of["adamw"].update == 4 * of["adamw"].trained
    assert of["adamw"].state == of["adamw"].moments + of["adamw"].masters
    wide = reckoned(*base, "optimizer=adamw", "model.dtype=float32")
    assert (wide.masters, wide.moments) == (0, of["adamw"].moments)
    plain = reckoned(*base, "optimizer=sgd")
    assert (plain.moments, plain.update) == (0, 0) and plain.masters == of["adamw"].masters
    assert of["mezo"].state < 5e-3 * of["mezo"].weights  # the fp32 copies of vectors
    master = reckoned(*base, "optimizer=mezo", "update=master")
    assert master.state == master.masters == pytest.approx(2 * master.trained, rel=5e-3)
    assert of["adamw"].gpus == 1 and reckoned("model=opt-66b", "task=sst2", "optimizer=none").peak > GPU_BYTES


@pytest.mark.slow
def test_adam_of_opt_30b_is_the_published_figure():
    """MeZO's Table 22, which the FZOO paper's figure repeats: 633 GB, and 58 GB for inference and MeZO.

    Full fine-tuning on MultiRC, 400 tokens, a batch of 1.
    """
    base = ("model=opt-30b", "task=multirc", "batch.size=1")
    e = reckoned(*base, "optimizer=adamw", tokens=400)
    n = 29_974_540_288
    assert e.parameters == e.trained == n
    assert (e.masters, e.moments, e.gradients, e.update) == (4 * n, 8 * n, 4 * n, 4 * n)
    assert 2 * n <= e.weights < 1.001 * 2 * n
    # One row: 48 layers keep 12 widths of 7,168 a token in fp16 (inputs and outputs of two norms, q, k, v, what
    # attention gives, four of ReLU's); the rest is masks, copies of q and the head.
    assert 1.0 < e.activations / (48 * 400 * 12 * 7168 * 2) < 1.3
    assert e.peak == e.weights + e.masters + e.moments + e.gradients + e.update
    assert 0.85 < e.peak / 633e9 < 1.15
    assert 0.85 < e.inference / 58e9 < 1.15
    assert 10 < e.peak / e.inference < 12


@pytest.mark.slow
@pytest.mark.parametrize("model, published", [("opt-1.3b", 27e9), ("opt-13b", 316e9)])
def test_adam_of_other_sizes_is_the_published_figure(model, published):
    e = reckoned(f"model={model}", "task=multirc", "batch.size=1", "optimizer=adamw", tokens=400)
    assert 0.85 < e.peak / published < 1.15


def test_checkpointing_leaves_the_inputs_of_layers():
    """The whole of activations without it grows with the layers, with it by one input a layer."""
    base = ("model=opt-125m", "task=sst2", "optimizer=adamw", "batch.size=16")
    plain = reckoned(*base, tokens=128)
    less = reckoned(*base, "optimizer.gradient_checkpointing=true", tokens=128)
    inputs = 12 * 16 * 128 * 768 * 4  # layers, rows, tokens, width, bytes
    assert inputs < less.activations < 0.35 * plain.activations
    assert less.training < plain.training and less.gradients == plain.gradients


@pytest.mark.slow
def test_adapters_of_rank_8_and_quantised_weights():
    base = ("model=llama-3.2-1b", "task=sst2", "peft=lora", "optimizer=none")
    e = reckoned(*base)
    assert e.trained == 16 * 8 * ((2048 + 2048) + (2048 + 512))  # A and B beside q and v of 16 layers
    assert reckoned(*base[:3], "optimizer=adamw").state == (4 + 2 * 4) * e.trained
    narrow = reckoned(*base, "model.quantization=nf4")
    linear = 16 * (2 * 2048**2 + 2 * 2048 * 512 + 3 * 2048 * 8192)  # the tied head stays
    assert e.weights - narrow.weights == pytest.approx((2 - 0.5 - 4 / 64) * linear, rel=1e-6)


@pytest.mark.slow
def test_more_probes_longer_rows_and_larger_batches_hold_more():
    base = ("model=opt-125m", "task=sst2", "optimizer=fzoo")
    alone = reckoned(*base, "probes_per_forward=1")
    assert alone.training < reckoned(*base, "probes_per_forward=2").training
    assert alone.training < reckoned(*base, "probes_per_forward=1", tokens=128).training
    assert reckoned(*base, "batch.micro=2", "probes_per_forward=1").training < alone.training
    assert alone.evaluation < reckoned(*base, "evaluate.batch=128").evaluation
    generated = ("model=opt-125m", "task=squad", "evaluate.batch=8", "optimizer=none")
    keys_and_values = 2 * 12 * 768 * 4 * 8  # bytes a token of the longest row and of the answer
    more = reckoned(*generated, "task.max_new_tokens=60").evaluation - reckoned(*generated).evaluation
    assert more == 10 * keys_and_values


def test_hours_are_proportional_to_steps_and_a_budget_of_minutes_is_said():
    base = ("model=opt-125m", "task=sst2", "task.dev=0", "task.test=1")
    short, long = (reckoned(*base, f"budget.steps={steps}").hours for steps in (1000, 2000))
    assert long / short == pytest.approx(2, rel=1e-2)
    assert reckoned(*base, "budget.minutes=90").hours == 1.5


MEASURE = """
import ctypes, gc, sys
from pathlib import Path
import torch
from experiments.config.compose import compose
from experiments.estimating import estimate
from experiments.evaluation import evaluate
from experiments.training.session import build
from tests.models.tiny import tokenizer
import transformers as hf

folder, data, *overrides = sys.argv[1:]
if not Path(folder).exists():
    hf.OPTForCausalLM(hf.OPTConfig(vocab_size=8192, hidden_size=256, num_hidden_layers=8, num_attention_heads=8,
        ffn_dim=1024, word_embed_proj_dim=256, max_position_embeddings=512)).save_pretrained(folder)
    tokenizer(False).save_pretrained(folder)
config = compose(["model=hub", "model.device=cpu", f"model.path={folder}", "task=sst2", f"task.data_dir={data}",
    "task.train=32", "task.dev=8", "task.test=32", "evaluate.batch=32", *overrides]).config
session = build(config)
optimizer, look = session.optimizer, session.look

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024

def settled():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")

def step(t):
    optimizer.tell(t, optimizer.step(t, session.batch(t), look))

def test():
    evaluate(session.task, session.loaded, session.task.test, 32)

step(0), step(1), test()
reckoned = estimate(config, tokens=session.batch(0)["input_ids"].shape[-1])
if optimizer.backward_passes == 0:
    look.executor.buffers.clear()
before = settled()
step(2)
print(status("VmHWM") - before, reckoned.training)
before = settled()
test()
print(status("VmHWM") - before, reckoned.evaluation)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=mezo",),
        ("optimizer=fzoo", "probes_per_forward=3"),
        ("optimizer=adamw",),
        ("optimizer=adamw", "optimizer.gradient_checkpointing=true"),
    ],
    ids=lambda o: "-".join(part.rpartition(".")[2].partition("=")[2] for part in o),
)
def test_memory_is_within_ten_percent_of_what_is_measured(tmp_path, overrides):
    """OPT of 8 M parameters; the high-water mark of a process whose allocator gives every block back."""
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(json.dumps({"sentence": "x" * 90, "label": i % 2}) + "\n" for i in range(100))
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").write_text(rows)
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536",
                                "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "opt"), str(data), *overrides],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    step, test = (tuple(map(int, line.split())) for line in done.stdout.splitlines()[-2:])
    assert 0.9 < step[1] / step[0] < 1.1, done.stdout
    assert test[1] > 0.9 * test[0], done.stdout  # less where options share the encoding of their prompt


def test_the_command_prints_a_table_and_numbers(capsys):
    assert main(["estimate", "model=opt-125m,roberta-large", "task=sst2", "optimizer=none"]) == 0
    table = capsys.readouterr().out
    assert "opt-125m" in table and "roberta-large" in table and "assumed" in table
    assert "×" in table and "multiple of inference" in table and "masters" in table
    assert main(["estimate", "model=opt-125m", "task=sst2", "--json", "--tokens", "32"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] == 125_239_296 and row["tokens"] == 32 and row["optimizer"] == "fzoo"


@pytest.mark.parametrize("command", ["estimate", "prefetch"])
def test_wrong_input_is_listed_at_once_and_exits_with_2(command, capsys):
    assert main([command, "model=opt-13", "seed=x,0"]) == 2
    said = capsys.readouterr().err
    assert "model=opt-13" in said and "opt-13b" in said and "seed=x" in said


def test_an_unknown_model_and_a_mode_that_cannot_be_quantised_are_refused(capsys):
    assert main(["estimate", "model=hub", "model.path=someone/unknown"]) == 2
    assert "shape is not known" in capsys.readouterr().err
    assert main(["estimate", "model=opt-125m", "model.quantization=int8"]) == 2
    assert "peft=none trains" in capsys.readouterr().err
