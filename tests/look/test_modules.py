"""Modules of all kinds: what reads its weights in an unusual way is evaluated right, or refused by name."""

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.look.test_point import moved_copy, plain_loss
from zo import FZOO, LookError, MeZO, ModuleLook
from zo.look.module import stack_size


def check(model, objective, batches, n=4, stacks=True, trained=None, eps=1e-2):
    """Looks, one by one and stacked, equal plain evaluations of models at the points."""
    model = model.eval()
    optimizer = FZOO(model, n=n, eps=eps)
    look = ModuleLook(model, objective, optimizer, probes_per_forward="all")
    for t, batch in enumerate(batches):
        probes = optimizer.ask(t)
        expected = [plain_loss(moved_copy(model, optimizer, probe), objective, batch) for probe in probes]
        assert len(set(expected)) > 1
        assert look(probes, batch) == expected, f"batch {t}"
    assert (look.sequential_because is None) == stacks
    return look


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(rows, length, seed=0):
    return torch.randint(0, 17, (rows, length), generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


class NanoGPT(nn.Module):
    """Position ids of one dimension, a raw parameter at the root, tied head."""

    def __init__(self, raw: bool, width: int = 8):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(17, width), nn.Embedding(32, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 17, bias=False)
        self.head.weight = self.wte.weight
        if raw:
            self.gain = nn.Parameter(torch.ones(width))

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x).cumsum(1)
        return self.head(x * self.gain if hasattr(self, "gain") else x)


def next_token(model, batch):
    ids = batch["ids"] if isinstance(batch, dict) else batch
    return F.cross_entropy(model(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


BATCHES = [tokens(3, 6), tokens(3, 6, 1), tokens(5, 4, 2), tokens(1, 6, 3), tokens(3, 30, 4)]


@pytest.mark.filterwarnings("ignore:Probes are evaluated one by one")
def test_nanogpt_with_position_ids_of_one_dimension():
    torch.manual_seed(0)
    check(NanoGPT(raw=False), next_token, BATCHES, stacks=False)  # [T, width] has no rows to stack


def test_a_raw_parameter_at_the_root():
    torch.manual_seed(0)
    check(NanoGPT(raw=True), next_token, BATCHES)  # the root goes group by group, inside one model call


@pytest.mark.filterwarnings("ignore:Probes are evaluated one by one")
@pytest.mark.parametrize("first", [4, 8, 2])
def test_shared_inputs_whose_length_grows_like_the_batch(first):
    """Positions grow 2, 3, 4 times while the largest tensor of the batch does not: still no part of the batch."""

    class Cumulative(NanoGPT):
        def forward(self, ids):
            places = self.wpe(torch.arange(ids.shape[1]))
            return self.head(self.wte(ids) + places.mean(0, keepdim=True)[None])

    torch.manual_seed(0)
    model = Cumulative(raw=False)
    model.blocks.requires_grad_(False)
    batches = [
        {"ids": tokens(2, length), "features": rand(2, 300)} for length in (first, 4, 8, 12, 16, 20, 32, 6)
    ]
    for n in (2, 3, 4):
        with pytest.warns(UserWarning):
            check(model, next_token, batches, n=n, stacks=False)


def test_position_ids_with_one_row():
    class BertLike(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places, self.kinds = nn.Embedding(17, 8), nn.Embedding(32, 8), nn.Embedding(2, 8)
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 17)

        def forward(self, ids):
            places = self.places(torch.arange(32)[None, : ids.shape[1]])
            return self.head(
                self.norm(self.words(ids) + places + self.kinds(torch.zeros_like(ids))).cumsum(1)
            )

    torch.manual_seed(0)
    check(BertLike(), next_token, BATCHES)


def test_the_objective_may_call_parts_of_the_model():
    """No call of the root at all: rows are those of the batch."""

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places, self.head = nn.Embedding(17, 8), nn.Embedding(32, 8), nn.Linear(8, 17)

        def body(self, ids):
            return self.words(ids) + self.places(torch.arange(ids.shape[1])[None])

        def forward(self, ids):
            raise AssertionError("not called")

    def objective(model, ids):
        return F.cross_entropy(model.head(model.body(ids)[:, -1]), ids[:, 0], reduction="none")

    torch.manual_seed(0)
    check(Parts(), objective, BATCHES)


def test_a_model_that_is_called_with_other_rows_than_the_batch():
    """Options as rows: [B, O, T] becomes [B·O, T] before the model is called."""

    class Options(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places, self.head = nn.Embedding(17, 8), nn.Embedding(32, 8), nn.Linear(8, 1)

        def forward(self, ids):
            x = self.words(ids) + self.places(torch.arange(ids.shape[1])[None])
            return self.head(x.cumsum(1)[:, -1])[:, 0]

    def objective(model, batch):
        scores = model(batch["ids"].flatten(0, 1)).view(batch["ids"].shape[:2])
        return F.cross_entropy(scores, batch["labels"], reduction="none")

    torch.manual_seed(0)
    batches = [
        {"ids": tokens(rows * 3, length, seed=i).view(rows, 3, length), "labels": torch.arange(rows) % 3}
        for i, (rows, length) in enumerate([(4, 5), (4, 5), (2, 7), (1, 5)])
    ]
    check(Options(), objective, batches)


def test_parameters_in_containers():
    class Vectors(nn.Module):
        """IA3-like: a ParameterDict and a ParameterList, read by the module that owns them."""

        def __init__(self):
            super().__init__()
            self.dict = nn.ParameterDict({"a": nn.Parameter(rand(5)), "b": nn.Parameter(rand(5, seed=1))})
            self.list = nn.ParameterList([nn.Parameter(rand(5, seed=2))])
            self.inner = nn.Linear(5, 5)

        def forward(self, x):
            return self.inner(x * self.dict["a"]) + self.dict["b"] * self.list[0]

    torch.manual_seed(0)
    model = nn.Sequential(Vectors(), nn.Tanh(), Vectors(), nn.Linear(5, 1))
    check(model, lambda model, x: model(x)[:, 0], [rand(6, 5, seed=i) for i in range(3)])


def test_a_module_called_twice_and_a_module_in_two_places():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(6, 6)
            self.again = self.shared
            self.norm = nn.LayerNorm(6)

        def forward(self, x):
            for _ in range(3):
                x = self.norm(torch.tanh(self.shared(x)) + self.again(x[..., :6]))
            return x.sum(1)

    torch.manual_seed(0)
    check(Twice(), lambda model, x: model(x), [rand(4, 6, seed=i) for i in range(3)])


def test_a_module_called_a_varying_number_of_times():
    class Depth(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            for _ in range(int(x[0, 0, 0].item())):
                x = torch.tanh(self.layer(x))
            return x.sum((1, 2))

    torch.manual_seed(0)
    model, x = Depth(), rand(4, 3, 6)
    batches = [x.index_fill(2, torch.tensor(0), float(depth)) for depth in (2, 2, 1, 3)]
    with pytest.warns(UserWarning, match="one by one"):
        check(model, lambda model, x: model(x), batches, stacks=False)


def test_a_mixture_of_experts_is_never_cut_in_the_wrong_places():
    """Each probe sends other rows to an expert, and their numbers may add up to what equal groups would have."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.router = nn.Linear(6, 2)
            self.experts = nn.ModuleList([nn.Linear(6, 1), nn.Linear(6, 1)])

        def forward(self, x):
            chosen = self.router(x).argmax(-1)
            output = x.new_zeros(len(x))
            for number, expert in enumerate(self.experts):
                rows = (chosen == number).nonzero()[:, 0]
                output[rows] = expert(x[rows])[:, 0]
            return output

    compared = 0
    for seed in range(40):
        torch.manual_seed(seed)
        model = Experts()
        optimizer = FZOO(model, n=4, eps=0.3)
        one, many = (
            ModuleLook(model, lambda m, x: m(x), optimizer, probes_per_forward=n) for n in (1, "all")
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for t in range(4):
                probes, x = optimizer.ask(t), rand(7, 6, seed=100 * seed + t)
                try:
                    expected = one(probes, x)
                except LookError:  # an expert that no row of the first batch is sent to
                    break
                assert many(probes, x) == expected
                compared += 1
    assert compared > 100


def test_keyword_and_nested_arguments():
    class Mix(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(rand(4))

        def forward(self, pair, *, mask=None, scale=1.0):
            first, second = pair
            return {"sum": (first + second) * self.gain * mask * scale, "none": None}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.last = Mix(), nn.Linear(4, 1)

        def forward(self, x):
            mixed = self.mix((x, x.flip(1)), mask=(x > 0).float(), scale=2.0)
            return self.last(input=mixed["sum"])[:, 0]

    torch.manual_seed(0)
    check(Outer(), lambda model, x: model(x), [rand(5, 4, seed=i) for i in range(3)])


def test_other_layers_of_torch():
    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv1d(3, 4, 3), nn.GroupNorm(2, 4)
            self.rms, self.bilinear = nn.RMSNorm(4), nn.Bilinear(4, 4, 2)
            self.bag = nn.EmbeddingBag(17, 4, mode="mean")

        def forward(self, x, ids):
            y = self.rms(self.norm(self.convolution(x)).mean(2))
            return self.bilinear(y, self.bag(ids)).sum(1)

    torch.manual_seed(0)
    batches = [{"x": rand(4, 3, 9, seed=i), "ids": tokens(4, 5, i)} for i in range(3)]
    check(Convolution(), lambda model, batch: model(**batch), batches)


def test_a_subclass_that_computes_something_else():
    class Scaled(nn.Embedding):
        def forward(self, ids):
            return 3.0 * super().forward(ids)

    class Squared(nn.Linear):
        def forward(self, input):
            return F.linear(input, self.weight.square(), self.bias)

    torch.manual_seed(0)
    model = nn.Sequential(Scaled(17, 6), Squared(6, 17))
    check(model, next_token, BATCHES[:3])


def test_an_embedding_that_renormalises_is_not_written():
    torch.manual_seed(0)
    embedding = nn.Embedding(17, 6, max_norm=1.0)
    model = nn.Sequential(embedding, nn.Linear(6, 17))
    before = embedding.weight.detach().clone()
    optimizer = FZOO(model, n=4)
    look = ModuleLook(model, next_token, optimizer)
    for t in range(2):
        look(optimizer.ask(t), BATCHES[0])
    assert torch.equal(embedding.weight, before)


def test_a_forward_set_on_the_instance_stays():
    torch.manual_seed(0)
    first: Any = nn.Linear(4, 4)
    model = nn.Sequential(first, nn.Linear(4, 1))
    plain = first.forward
    first.forward = lambda x: plain(x) * 2.0
    mine = first.forward
    optimizer = FZOO(model, n=4)
    look = ModuleLook(model, lambda model, x: model(x)[:, 0], optimizer, probes_per_forward="all")
    base = ModuleLook(model, lambda model, x: model(x)[:, 0], optimizer, probes_per_forward=1)
    for t in range(3):
        assert look(optimizer.ask(t), rand(3, 4)) == base(optimizer.ask(t), rand(3, 4))
    assert first.__dict__["forward"] is mine


def test_frozen_parts_are_left_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 1))
    model[2].requires_grad_(False)
    model[0].bias.requires_grad_(False)
    look = check(model, lambda model, x: model(x)[:, 0], [rand(6, 5, seed=i) for i in range(3)])
    assert sorted(look.weights.tensors) == ["0.weight", "4.bias", "4.weight"]


# What cannot be perturbed is named.


def refused(model, objective, batch, message):
    optimizer = MeZO(model.eval())
    look = ModuleLook(model, objective, optimizer)
    for _ in range(2):  # asked again, it refuses again
        with pytest.raises(LookError, match=message):
            look(optimizer.ask(0), batch)
    return optimizer


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0].sum((1, 2))


def test_multihead_attention_reads_its_projection_from_outside():
    refused(Attention(), lambda model, x: model(x), rand(3, 4, 8), r"attention\.out_proj\.weight")


def test_multihead_attention_works_with_its_projection_frozen():
    torch.manual_seed(0)
    model = Attention()
    model.attention.out_proj.requires_grad_(False)
    check(model, lambda model, x: model(x), [rand(3, 4, 8, seed=i) for i in range(3)])


def test_an_unused_module_is_named():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(4, 1), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)[:, 0]

    optimizer = refused(Spare(), lambda model, x: model(x), rand(3, 4), r"spare\.bias, spare\.weight")
    model = Spare()
    model.spare.requires_grad_(False)
    ModuleLook(model, lambda model, x: model(x), MeZO(model))(optimizer.ask(0), rand(3, 4))


def test_an_unused_parameter_of_a_module_that_is_called_is_named():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain, self.spare, self.linear = nn.Parameter(rand(4)), nn.Parameter(rand(4)), nn.Linear(4, 1)

        def forward(self, x):
            return self.linear(x * self.gain)[:, 0]

    refused(Spare(), lambda model, x: model(x), rand(3, 4), "does not use spare, or")


def test_a_weight_read_by_the_parent_is_named():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.held = nn.Linear(4, 4)
            self.last = nn.Linear(4, 1)

        def forward(self, x):
            return self.last(x @ self.held.weight)[:, 0]

    refused(Reader(), lambda model, x: model(x), rand(3, 4), r"held\.bias, held\.weight")


def test_transformer_layers_of_torch_are_refused_not_misread():
    """In eval mode their fast path reads all weights from outside."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    refused(model, lambda model, x: model(x).sum((1, 2)), rand(3, 4, 8), r"linear1\.weight")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers(kind):
    """torch's recurrent layers keep a list of their weights beside the attributes."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = kind(4, 5, batch_first=True), nn.Linear(5, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])[:, 0]

    torch.manual_seed(0)
    model, objective = Recurrent().eval(), lambda model, x: model(x)
    optimizer = FZOO(model, n=4, eps=1e-2)
    many = ModuleLook(model, objective, optimizer, probes_per_forward="all")
    one = ModuleLook(model, objective, optimizer, probes_per_forward=1)
    for t in range(3):
        x, probes = rand(3, 6, 4, seed=t), optimizer.ask(t)
        expected = [plain_loss(moved_copy(model, optimizer, probe), objective, x) for probe in probes]
        assert many(probes, x) == one(probes, x)
        # torch may fuse the plain layer's gates otherwise: a few units in the last place of numbers below 1.
        assert one(probes, x) == pytest.approx(expected, abs=8 * 2**-24)


def test_an_optimizer_of_another_model_is_refused():
    one, other = nn.Linear(3, 1), nn.Linear(3, 1)
    optimizer = MeZO(one)
    with pytest.raises(LookError, match="another model"):
        ModuleLook(other, lambda model, x: model(x)[:, 0], optimizer)(optimizer.ask(0), rand(2, 3))


def test_a_copied_model_can_be_looked_at_after_a_look():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = MeZO(model)
    ModuleLook(model, lambda model, x: model(x)[:, 0], optimizer)(optimizer.ask(0), rand(2, 3))
    twin = copy.deepcopy(model)
    assert torch.equal(twin(rand(2, 3)), model(rand(2, 3)))


def calls_of(probes, numbers, cpu_bytes, setting: int | str = "auto"):
    """Sizes of the calls that a step's probes are looked at in."""
    sizes = []
    while left := probes - sum(sizes):
        sizes.append(min(left, stack_size(setting, left, numbers, cpu_bytes)))
    return sizes


def test_auto_stacks_what_the_limits_allow_in_calls_of_about_one_size():
    opt_10m = 40_409_600  # bytes in fp32
    assert calls_of(9, 4 * 32, opt_10m) == [3, 3, 3]
    assert calls_of(9, 4 * 32, opt_10m // 2) == [5, 4]  # in 16 bits twice as many
    assert calls_of(9, 16 * 64, opt_10m) == [1] * 9
    assert calls_of(9, 16 * 64, 0) == [9]  # no CPU
    assert calls_of(33, 16 * 300, 0) == [3] * 11  # 16,384 numbers a call
    assert calls_of(9, 10**6, 0) == [1] * 9
    assert calls_of(33, 16 * 24, 1_600_000) == [9, 8, 8, 8]  # 4,096 numbers on a CPU
    assert calls_of(9, 4 * 32, opt_10m, "all") == [9]
    assert calls_of(9, 4 * 32, opt_10m, 4) == [4, 4, 1]  # a number is taken at its word
    for probes in range(1, 40):
        sizes = calls_of(probes, 4 * 32, opt_10m)
        assert sum(sizes) == probes and max(sizes) <= 4 and max(sizes) - min(sizes) <= 1
