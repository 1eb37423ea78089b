"""Every PEFT mode on every family: one step, what is trained, how much of it, and what cannot be."""

from typing import Any

import pytest
import torch

from experiments.config.peft_config import MODES
from experiments.peft import attach
from zo import FZOO, AdamW, ModuleLook, Weights
from zo.errors import ConfigError

from .tiny import CAUSAL, CLASSIFIERS, MASKED, MORE_CAUSAL, VOCABULARY, conf, load_task, loaded_of

FAMILIES = (*CAUSAL, *MORE_CAUSAL, *MASKED, *CLASSIFIERS)
REFUSED = {("bitfit", name) for name in ("llama", "mistral", "qwen3", "gemma3")} | {
    ("prompt", name) for name in CLASSIFIERS if name.endswith("-own")
}
CASES = [(m, f) for m in MODES if m != "none" for f in FAMILIES if (m, f) not in REFUSED]
BLOCKS = {"layers": {"blocks": "last:1"}}

d, L, f, V = 32, 2, 64, VOCABULARY  # of the tiny models: width, blocks, inner width, words


def head_size(family: str) -> int:
    """A classifier's head, which is new and so trained in every mode; BERT's own has a new pooler before it."""
    linear = 2 * d + 2
    return {"encoder": linear, "bert-own": d * d + d + linear, "roberta-own": d * d + d + linear}.get(
        family, 0
    )


def parameters(mode: str, family: str) -> int:
    """How many are trained, by formula."""
    kv = {"llama": d // 2, "mistral": d // 2, "qwen3": 24, "gemma3": 24}.get(family, d)
    q = {"qwen3": 48, "gemma3": 48}.get(family, d)
    inner = 4 * d if family == "gpt2" else f
    gated = family in ("llama", "mistral", "qwen3", "gemma3")
    feed = 3 * d * f if gated else 2 * d * inner + inner + d
    attention = 2 * d * q + 2 * d * kv if gated else 4 * (d * d + d)
    norms = {"llama": 2 * d, "mistral": 2 * d, "phi": 2 * d, "qwen3": 2 * d + 24, "gemma3": 4 * d + 24}
    biases = 4 * d + inner + d + (d if family == "phi" else 2 * d)
    outside = {"opt": d, "opt-post": 0, "phi": d + V, "gpt2": d}.get(family, d)
    masked_head = d + d + V if family in MASKED else 0
    pairs = {"gpt2": d + 3 * d, "phi": 2 * (d + d) + 2 * (d + f)}.get(family, d + q + d + kv)
    sizes = {
        "lora": L * 8 * pairs,
        "prefix": 5 * L * 2 * kv,
        "prompt": 20 * (d // 2 if family == "opt-post" else d),  # OPT-350m's embeddings are narrower
        "ia3": L * ((3 * d if family == "gpt2" else 2 * kv) + inner),
        "bitfit": L * biases + outside + masked_head,
        "layers": attention + feed + norms.get(family, 4 * d),
        "head": 0
        if family in CLASSIFIERS
        else (
            d * d + d + 2 * d + V * d + V if family in MASKED else V * (d // 2 if family == "opt-post" else d)
        )
        + (V if family == "phi" else 0),
    }
    return sizes[mode] + head_size(family)


def attached(folder, mode, family, seed=0, dtype="float32", **changes) -> Any:
    choice = conf("peft", mode, **{**BLOCKS.get(mode, {}), **changes})
    return attach(loaded_of(folder, family, dtype=dtype), choice, seed)


def check_step(folder, reviews, mode, family, dtype):
    loaded = attached(folder, mode, family, dtype=dtype)
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    assert task.limit == 128 - {"prefix": 5, "prompt": 20}.get(mode, 0)
    before = {name: tensor.clone() for name, tensor in loaded.model.named_parameters()}
    weights = Weights(loaded.model)
    assert weights.numel == parameters(mode, family)
    # Large enough to be seen in bfloat16, and behind LoRA's zeros.
    optimizer = FZOO(weights, n=4, eps=5e-2, lr=0.5)
    one = ModuleLook(loaded.model, task.objective, optimizer, probes_per_forward=1)
    many = ModuleLook(loaded.model, task.objective, optimizer, probes_per_forward="all")
    for t in range(2):
        batch = task.collate(task.train[4 * t : 4 * t + 4])
        probes = optimizer.ask(t)
        losses = one(probes, batch)
        assert many(probes, batch) == losses  # the same bits
        assert len(set(losses)) > 2
    assert many.sequential_because is None
    assert many.executor.perturbed == set(weights.tensors)
    optimizer.tell(1, losses)
    for name, tensor in loaded.model.named_parameters():
        assert torch.equal(tensor, before[name]) != tensor.requires_grad, name
    adam = AdamW(weights, lr=1e-3)
    loss = adam.step(2, batch, many)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in weights.tensors.values())
    digest = weights.sha256()
    adam.tell(2, loss)
    assert weights.sha256() != digest


@pytest.mark.parametrize("mode, family", CASES)
def test_one_step_stacked_as_sequential_and_by_gradient(folder, reviews, mode, family):
    check_step(folder, reviews, mode, family, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("mode, family", CASES)
def test_the_same_in_bfloat16(folder, reviews, mode, family):
    check_step(folder, reviews, mode, family, "bfloat16")


@pytest.mark.parametrize("mode, family", sorted(REFUSED))
def test_what_cannot_be_is_refused_with_the_reason_and_a_way_out(folder, mode, family):
    with pytest.raises(ConfigError, match=rf"peft={mode} .*(Take|Use) peft="):
        attached(folder, mode, family)


@pytest.mark.parametrize("mode", [m for m in MODES if m not in ("none", "ia3")])
def test_what_is_new_has_the_models_dtype(folder, mode):
    model = attached(folder, mode, "opt", dtype="bfloat16").model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_factors_near_one_stay_in_fp32(folder):
    model = attached(folder, "ia3", "opt", dtype="bfloat16").model
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_a_factor_changes_what_it_scales_by_one_rounding_to_bfloat16(folder):
    """The output is y · l rounded once, l in fp32: so l = 1.001 gives y again, and l = 1.01 is seen."""
    wide = attached(folder, "ia3", "opt").model
    model = attached(folder, "ia3", "opt", dtype="bfloat16").model
    layer, exact = (
        next(m for name, m in each.named_modules() if name.endswith("k_proj")) for each in (model, wide)
    )
    x = torch.randn(64, d, generator=torch.Generator().manual_seed(3)).bfloat16()
    plain = layer.base_layer(x)
    for factor, seen in ((1.001, False), (1.01, True)):
        for each in (layer, exact):
            torch.nn.init.constant_(each.ia3_l["default"], factor)
        with torch.no_grad():
            scaled, reference = layer(x), exact(x.float())
        assert torch.equal(scaled, (plain.float() * torch.tensor(factor)).bfloat16())
        assert torch.equal(scaled, plain) != seen
        # Weights, bias, sum and product are each rounded by at most 2^-9 of their size, d = 32 terms of size 1 or less.
        assert torch.allclose(
            scaled.float(), reference, rtol=2**-7, atol=2**-7 * float(reference.abs().max())
        )


@pytest.mark.parametrize("mode", ["prefix", "prompt"])
@pytest.mark.parametrize("init", ["random", None])
def test_virtual_tokens_are_drawn_from_their_seed_and_leave_the_global_generator_alone(folder, mode, init):
    before = torch.get_rng_state()
    changes = {} if init is None else {"init": init}

    def drawn(seed):
        model = attached(folder, mode, "opt", seed=seed, **changes).model
        return next(p for p in model.parameters() if p.requires_grad)

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_prompt_begins_as_rows_of_the_vocabulary(folder):
    model = attached(folder, "prompt", "llama").model
    table = model.get_base_model().get_input_embeddings().weight
    prompt = next(p for p in model.parameters() if p.requires_grad)
    assert all((row == table).all(1).any() for row in prompt)


def test_factors_scale_keys_values_and_the_inner_layer(folder):
    """(IA)³'s choice, which is not the library's own for OPT (queries and keys) or BERT (attention outputs too)."""

    def scaled(family):
        names = {n.split(".ia3_l")[0] for n, p in attached(folder, "ia3", family).model.named_parameters()
                 if "ia3_l" in n and ".0." in n}  # fmt: skip
        return {".".join(name.split(".0.")[-1].split(".")[-2:]) for name in names}

    assert scaled("opt") == {"self_attn.k_proj", "self_attn.v_proj", "fc2"}
    assert scaled("gemma3") == {"self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj"}
    assert scaled("roberta") == {"self.key", "self.value", "output.dense"}
    assert scaled("gpt2") == {"attn.c_attn", "mlp.c_proj"}


@pytest.mark.parametrize("blocks", ["last:1", "1-1", 1, -1, [1], "first:1", "0-1", [0, 1], "last:2"])
def test_blocks_are_those_named(folder, blocks):
    chosen = {"first:1": {"0"}, "0-1": {"0", "1"}, "last:2": {"0", "1"}}.get(str(blocks), {"1"})
    chosen = {"0", "1"} if blocks == [0, 1] else chosen
    model = attached(folder, "layers", "llama", blocks=blocks).model
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {n.split("layers.")[1].split(".")[0] for n in names} == chosen
    assert all((n in names) == (f".{n.split('layers.')[1].split('.')[0]}." in n) for n in names)


def test_wrong_modes_are_named(folder):
    for blocks in ("last:3", "0-2", [2], [-3], [], "last:0"):
        with pytest.raises(ConfigError, match=r"peft\.blocks=.*2 blocks, 0 to 1"):
            attached(folder, "layers", "llama", blocks=blocks)
    with pytest.raises(ConfigError, match="write last:2"):
        attached(folder, "layers", "llama", blocks="the last")
    with pytest.raises(ConfigError, match=r"peft\.tokens=0"):
        attached(folder, "prefix", "llama", tokens=0)
    with pytest.raises(ConfigError, match=r"peft\.init=text: It takes vocabulary or random"):
        attached(folder, "prompt", "llama", init="text")
    with pytest.raises(ConfigError, match=r"peft\.tokens=128 leaves no room.*128 positions"):
        attached(folder, "prefix", "opt", tokens=128)
    with pytest.raises(ConfigError, match=r"peft\.targets=\['nothing'\].*linear layers are.*fc1"):
        attached(folder, "ia3", "opt", targets=["nothing"])


def test_a_tied_head_becomes_a_copy_and_the_embeddings_stay(folder):
    for family in ("opt", "llama", "gpt2", "roberta", "bert"):
        plain = loaded_of(folder, family).model
        model = attached(folder, "head", family).model
        table, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert output is not table and torch.equal(output, table)
        assert output.requires_grad and not table.requires_grad
        assert not model.config.tie_word_embeddings and plain.config.tie_word_embeddings
