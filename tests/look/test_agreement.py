"""Whatever a model does with its rows: stacked losses are those of the probes alone, or probes go one by one."""

import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests import tiny
from zo import FZOO, LookError, MeZO, ModuleLook, Weights
from zo.look.order import TESTED, RowOrder


class Experts(nn.Module):
    """Expert-major: every row for expert 0, then every row for expert 1, and two heads."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        y = torch.tanh(self.inner(x.repeat(2, 1))).view(2, -1, 8)
        return self.out((y * torch.tensor([1.0, 3.0]).view(-1, 1, 1)).sum(0))


class TimeMajor(nn.Module):
    """[time × rows, width], as a recurrent model's step over all rows."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        rows, width = x.shape[0], 4
        steps = x.view(rows, 2, width).repeat(1, 1, 2).transpose(0, 1).reshape(2 * rows, 8)
        return self.out(torch.tanh(self.inner(steps)).view(2, rows, 8).sum(0))


class Sorted(nn.Module):
    """Rows in the order of their first number, as packing by length does. seen: by torch, or in Python."""

    def __init__(self, seen: bool):
        super().__init__()
        self.inner, self.out, self.seen = nn.Linear(8, 8), nn.Linear(8, 2), seen

    def forward(self, x):
        keys = x[:, 0]
        if self.seen:
            order = keys.argsort(stable=True)
            back = torch.empty_like(order)
            back[order] = torch.arange(len(x))
            return self.out(torch.tanh(self.inner(x[order])))[back]
        numbers = keys.tolist()
        places = sorted(range(len(x)), key=lambda i: numbers[i])
        y = self.out(torch.tanh(self.inner(torch.stack([x[i] for i in places]))))
        return torch.stack([y[places.index(i)] for i in range(len(x))])


def losses_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def batch_of(seed, ordered=False, rows=4):
    x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    if ordered:  # equal keys: a stable sort leaves any number of copies where they are
        x[:, 0] = 0.0
    return x, (x.sum(1) > 0).long()


def compare(model, objective, batches, optimizer=None, per_forward: Any = "all"):
    """The look after batches whose losses are those of a look one by one."""
    optimizer = optimizer or FZOO(model, n=8, eps=1e-2)
    one = ModuleLook(model, objective, optimizer, probes_per_forward=1)
    many = ModuleLook(model, objective, optimizer, probes_per_forward=per_forward)
    for t, batch in enumerate(batches):
        probes = optimizer.ask(t)
        assert many(probes, batch) == one(probes, batch), f"step {t}"
    return many


@pytest.mark.parametrize("build", [Experts, TimeMajor])
@pytest.mark.parametrize("rows", [1, 4])
def test_folded_rows_go_one_by_one(build, rows):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="one by one"):
        look = compare(build(), losses_of, [batch_of(t, rows=rows) for t in range(3)])
    assert look.sequential_because is not None and "alone" in look.sequential_because


def test_rows_sorted_by_data_go_one_by_one_though_the_first_batch_is_in_order():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"order of rows depends on the data \(sort\)"):
        look = compare(Sorted(seen=True), losses_of, [batch_of(0, ordered=True), batch_of(1), batch_of(2)])
    assert look.check_forward_passes == 0  # seen in the first forward pass, before anything was stacked


def test_a_difference_found_late_stops_the_run_and_names_the_steps():
    """The order is worked out in Python, which no operation of torch shows; the first seven batches are in order."""
    torch.manual_seed(0)
    model = Sorted(seen=False)
    optimizer = FZOO(model, n=8, eps=1e-2)
    look = ModuleLook(model, losses_of, optimizer, probes_per_forward="all")
    for t in range(8):
        look(optimizer.ask(t), batch_of(t, ordered=t < 6))
    with pytest.raises(LookError, match=r"^Step 8: .*steps 3 and 5 to 7, .*probes_per_forward=1"):
        look(optimizer.ask(8), batch_of(8))


def test_a_difference_at_a_new_width_stops_the_run_where_steps_are_in_doubt():
    torch.manual_seed(0)

    class Folds(Experts):
        def forward(self, x):
            return super().forward(x[:, :8]) if x.shape[1] > 8 else self.out(torch.tanh(self.inner(x)))

    def wide(seed):
        x, y = batch_of(seed)
        return torch.cat([x, x], 1), y

    model = Folds()
    optimizer = FZOO(model, n=8, eps=1e-2)
    look = ModuleLook(model, losses_of, optimizer, probes_per_forward="all")
    for t in range(4):
        look(optimizer.ask(t), batch_of(t))
    with pytest.raises(LookError, match="losses of steps 3, which"):
        look(optimizer.ask(4), wide(4))
    fresh = ModuleLook(model, losses_of, optimizer, probes_per_forward="all")
    fresh(optimizer.ask(0), batch_of(0))
    with pytest.warns(UserWarning, match="one by one"):  # every stack so far was compared
        fresh(optimizer.ask(1), wide(1))


@pytest.mark.parametrize(
    "function, by",
    [
        (lambda x: x[torch.arange(len(x))], None),
        (lambda x: x[torch.arange(len(x)), x[:, 0].argmax().expand(len(x))][:, None], None),
        (lambda x: x.gather(1, x.long().clamp(0, 1)), None),
        (lambda x: x.masked_fill(x > 0, 0.0), None),
        (lambda x: x.sort(0).values, "sort"),
        (lambda x: x.topk(2, 1).values, "topk"),
        (lambda x: x[x[:, 0] > 0], "index"),
        (lambda x: x[x[:, 0].long().clamp(0, 1)], "index"),
        (lambda x: x.index_select(0, x[:, 0].long().clamp(0, 1)), "index_select"),
        (lambda x: torch.zeros(3).index_add_(0, x[:, 0].long().clamp(0, 1), x[:, 1]), "index_add_"),
        (lambda x: (x > 0).nonzero(), "nonzero"),
    ],
)
def test_operations_that_order_rows_are_seen(function, by):
    x, _ = batch_of(0)
    with (order := RowOrder(nn.Identity())):
        function(x)
    assert order.by == by


MOE = {
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen2_moe": ("Qwen2Moe", {"num_experts": 4, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 12}),
    "qwen3_moe": ("Qwen3Moe", {"num_experts": 4, "moe_intermediate_size": 12, "head_dim": 8}),
    "olmoe": ("Olmoe", {"num_experts": 4}),
    "phimoe": ("Phimoe", {"num_local_experts": 4}),
    "gpt_oss": ("GptOss", {"num_local_experts": 4, "head_dim": 8}),
    "deepseek_v3": (
        "DeepseekV3",
        {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
         "first_k_dense_replace": 0, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
         "qk_nope_head_dim": 4},
    ),
}  # fmt: skip


def moe(name, more):
    import transformers

    more = {"num_key_value_heads": 2, "num_experts_per_tok": 2} | more
    config = getattr(transformers, f"{name}Config")(
        vocab_size=tiny.VOCABULARY, hidden_size=16, num_hidden_layers=2, intermediate_size=36, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2, use_cache=False, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def test_every_tested_family_has_a_test():
    assert MOE.keys() == TESTED


@pytest.mark.parametrize("kind", sorted(MOE))
def test_tested_mixtures_of_experts_are_stacked(kind):
    model = moe(*MOE[kind])
    assert model.config.model_type == kind
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Probes are evaluated one by one")
        batches = [tiny.batch("llama", 4, 8, seed=t) for t in range(4)]
        look = compare(model, tiny.causal, batches, FZOO(Weights(model), n=4))
    assert look.sequential_because is None


def test_llama_4_goes_one_by_one():
    import transformers

    config = transformers.Llama4TextConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=16, num_hidden_layers=2, intermediate_size=36,
        intermediate_size_mlp=36, num_attention_heads=2, num_key_value_heads=2, head_dim=8, num_local_experts=2,
        max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Llama4ForCausalLM(config).eval()
    with pytest.warns(UserWarning, match="one by one"):
        look = compare(model, tiny.causal, [tiny.batch("llama", 4, 8, seed=t) for t in range(2)])
    assert look.sequential_because is not None


class Fails(nn.Module):
    """Works for at most `most` rows."""

    def __init__(self, error: Exception, most: int):
        super().__init__()
        self.inner, self.error, self.most = nn.Linear(8, 2), error, most

    def forward(self, x):
        if len(x) > self.most:
            raise self.error
        return self.inner(x)


def test_an_error_in_a_stack_means_one_by_one():
    model = Fails(RuntimeError("Expected size 128 but got 4096\nand more"), most=4)
    with pytest.warns(UserWarning, match="one by one.*RuntimeError: Expected size 128 but got 4096"):
        look = compare(model, losses_of, [batch_of(t) for t in range(2)])
    assert "\n" not in (look.sequential_because or "")


def test_an_error_of_a_probe_alone_is_raised_as_it_is():
    error = ValueError("no such row")
    optimizer = FZOO(model := Fails(error, most=3), n=8)
    look = ModuleLook(model, losses_of, optimizer, probes_per_forward="all")
    with pytest.raises(ValueError) as caught:
        look(optimizer.ask(0), batch_of(0))
    assert caught.value is error and look.sequential_because is None


def test_out_of_memory_in_a_stack_is_raised():
    optimizer = FZOO(model := Fails(torch.OutOfMemoryError("CUDA out of memory."), most=4), n=8)
    look = ModuleLook(model, losses_of, optimizer, probes_per_forward="all")
    with pytest.raises(torch.OutOfMemoryError):
        look(optimizer.ask(0), batch_of(0))
    assert look.sequential_because is None
    look.probes_per_forward = 2
    with pytest.raises(torch.OutOfMemoryError):  # the shape is still to be compared
        look(optimizer.ask(0), batch_of(0))
    assert look.check_forward_passes == 9 + 2


def test_models_that_take_no_stack_go_one_by_one():
    """BioGPT and BART's decoder count positions from a mask in ways that a stack breaks, or they stack."""
    import transformers

    config = transformers.BioGptConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=16, num_hidden_layers=2, intermediate_size=36, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BioGptForCausalLM(config).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(model, tiny.causal, [tiny.batch("llama", 4, 8, seed=t) for t in range(2)])


def sst2_lengths() -> list[int]:
    """Tokens of 2,000 training rows of sst2 with the words around them."""
    from transformers import AutoTokenizer

    shared = Path(os.environ.get("ZO_SHARED", Path(__file__).parents[3] / "shared"))
    rows, model = shared / "data" / "sst2" / "train.jsonl", shared / "models" / "stories260K"
    if not rows.exists() or not model.exists():
        pytest.skip("There is no data/sst2 or models/stories260K in $ZO_SHARED.")
    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = rows.read_text(encoding="utf-8").splitlines()[:2000]
    texts = [f"{json.loads(line)['sentence']} It was great" for line in lines]
    return [len(ids) for ids in tokenizer(texts)["input_ids"]]


class Counts(nn.Module):
    """Counts the rows that it is given."""

    def __init__(self):
        super().__init__()
        self.words, self.out, self.rows = nn.Embedding(8, 2), nn.Linear(2, 2), 0

    def forward(self, ids):
        self.rows += len(ids)
        return self.out(self.words(ids).mean(1))


@pytest.mark.parametrize(
    "method, n, micro, multiple",
    [
        (FZOO, 8, None, 8),
        (MeZO, 1, None, 8),
        pytest.param(FZOO, 8, 6, 8, marks=pytest.mark.slow),
        pytest.param(FZOO, 8, None, 1, marks=pytest.mark.slow),
        pytest.param(MeZO, 1, None, 1, marks=pytest.mark.slow),
    ],
)
def test_comparing_costs_at_most_2_percent_of_1000_steps_on_sst2(method, n, micro, multiple):
    """Counted by the model, for batches of 16 of real lengths, padded to a multiple of 8 (as tasks are) or to none."""
    lengths = sst2_lengths()
    torch.manual_seed(0)
    pick, model, widths = random.Random(0), Counts(), set()
    optimizer = method(model, n=n)
    look = ModuleLook(model, losses_of, optimizer, probes_per_forward="all", micro=micro)
    for t in range(1000):
        width = -(-max(pick.choices(lengths, k=16)) // multiple) * multiple
        widths.add(width)
        ids = torch.randint(0, 8, (16, width), generator=torch.Generator().manual_seed(t))
        look(optimizer.ask(t), (ids, ids[:, 0] % 2))
    passes = 1000 * optimizer.forward_passes
    print(f"{len(widths)} widths, {passes} forward passes, {look.check_forward_passes} to compare")
    assert len(widths) > (10 if multiple == 8 else 60) and look.sequential_because is None
    assert look.forward_passes == passes
    assert passes < model.rows / 16 <= 1.02 * passes
    assert model.rows / 16 - passes <= look.check_forward_passes < model.rows / 16 - passes + 1


@pytest.mark.filterwarnings("ignore:Probes are evaluated one by one")
def test_groups_at_theta_are_told_apart_where_losses_agree_to_rounding_only():
    """As on a GPU: folded rows move losses by less than rounding may, but at θ the groups hold other examples."""
    torch.manual_seed(0)
    model = Experts()
    optimizer = FZOO(model, n=8, eps=1e-8)
    look = ModuleLook(model, losses_of, optimizer, probes_per_forward="all")
    look._rounding = torch.float32
    look(optimizer.ask(0), batch_of(0))
    assert look.sequential_because is not None and "at θ" in look.sequential_because
