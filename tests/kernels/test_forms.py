"""Every fast form gives the bits of the eager one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zo.errors import ConfigError
from zo.kernels import Eager, Native, Noise, Write, best, build, eager, native
from zo.kernels.adam_window import Moments, f32, roots
from zo.kernels.formulas import Formula
from zo.kernels.transforms import AddMomentum, DivideBySqrt, DivideBySqrtOuter, MaskLarge
from zo.noise import GAUSSIANS, SHORT_GAUSSIANS, SIGNS, philox
from zo.weights import Block

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STREAMS = pytest.mark.parametrize(
    "stream", [SIGNS, GAUSSIANS, SHORT_GAUSSIANS], ids=["signs", "gaussians", "short gaussians"]
)
PID = 0xFEDCBA9876543210
ONE = [((1 << 64) - 5, 1e-3)]
NINE = [(7919 * k, (-1) ** k * 10.0**-k) for k in range(9)]
SPECIAL = [
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    6e-8,
    5.9e-5,
    -6.2e-5,
    3e38,
    65504.0,
    -65519.0,
    65520.0,
    float("inf"),
    float("nan"),
]
UPDATES = [
    ("nearest", 0.0),
    ("nearest", 1e-3),
    ("stochastic", 0.0),
    ("stochastic", 0.1),
    ("master", 1e-3),
]  # decay
compiler = pytest.mark.skipif(bool(Native().reason), reason=f"no native form here: {Native().reason}")


@pytest.fixture(params=["small blocks", "native", "native, portable"])
def form(request):
    made = {
        "small blocks": lambda: Eager(block=1000),
        "native": Native,
        "native, portable": lambda: Native(True),
    }
    chosen = made[request.param]()
    if isinstance(chosen, Native) and chosen.reason:
        pytest.skip(f"no native form here: {chosen.reason}")
    return chosen


def weights(count, dtype, seed=0):
    """Normal numbers behind the ones where rounding is delicate."""
    w = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    special = torch.tensor(SPECIAL)[:count]
    w[: len(special)] = special
    return w.to(dtype)


def same_bits(a, b):
    """Equal patterns, NaN for NaN: their payload depends on torch's own vector code."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert torch.equal(a.isnan(), b.isnan())
    integers = torch.int32 if a.dtype == torch.float32 else torch.int16
    known = ~a.isnan()
    assert torch.equal(a.contiguous().view(integers)[known], b.contiguous().view(integers)[known])


@STREAMS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 16, 17, 127, 128, 320, 4097, 40001])
def test_perturb(form, stream, dtype, count):
    w = weights(count, dtype)
    before = w.clone()
    for terms in (ONE, NINE):
        same_bits(form.perturb(w, Noise(PID, stream), terms), Eager().perturb(w, Noise(PID, stream), terms))
    same_bits(w, before)


@STREAMS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("update", "decay"), UPDATES)
def test_move(form, stream, dtype, update, decay):
    for count in (13, 5003):
        for terms in ((), ONE, NINE):
            one, other = weights(count, dtype), weights(count, dtype)
            low = None
            if update == "master" and dtype != torch.float32:
                most = 1 << (15 if dtype == torch.bfloat16 else 14)
                low = torch.randint(-most, most, (count,), generator=torch.Generator().manual_seed(1))
                low = low.to(torch.int16)
            lower = None if low is None else low.clone()
            form.move(one, Noise(PID, stream), terms, Write(decay, update, 999), low)
            Eager().move(other, Noise(PID, stream), terms, Write(decay, update, 999), lower)
            same_bits(one, other)
            if low is not None and lower is not None:
                assert torch.equal(low[~one.isnan()], lower[~one.isnan()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_master_weight_moved_to_no_number_is_none(form, dtype):
    """The sums are NaN of many patterns: of what was one, of infinities, and from the state of a step."""
    bad = torch.tensor([-1, 0x7FFFFFFF, 0x7F800001, -0x7FFFFF, 0x7FFF8000, -0x8000], dtype=torch.int32)
    bad = bad.view(torch.float32).repeat(100)

    def nothing(at):
        return at.state["bad"]

    weight, low = torch.zeros(600, dtype=dtype), torch.full((600,), -1, dtype=torch.int16)
    if isinstance(form, Native):
        program = Formula(nothing).program("w", 0, ("bad",))
        assert program is not None
        assert form.formula(weight, Noise(PID, SIGNS), program, [], [bad], Write(1.0, "master"), low)
    else:
        form.move(weight, Noise(PID, SIGNS), [], Write(1.0, "master"), low, AddMomentum(bad, (1.0,)))
    assert weight.isnan().all() and not low.any()


@STREAMS
def test_a_move_without_scale_and_decay_changes_no_bit(form, stream):
    for dtype in DTYPES:
        # +0 added to -0 is +0, so the one number left out is -0.
        w = weights(5003, dtype)
        w[w == 0] = 0.0
        for update in ("nearest", "stochastic"):
            moved = w.clone()
            form.move(moved, Noise(PID, stream), [(1, 0.0)], Write(update=update))
            same_bits(moved.abs(), w.abs())
            same_bits(moved[w != 0], w[w != 0])


@STREAMS
@pytest.mark.parametrize("width", [1, 3, 64, 130, 320])
def test_rows(form, stream, width):
    rows = torch.tensor([29, 0, 7, 7, 12])
    for dtype in DTYPES:
        w = weights(30 * width, dtype).view(30, width)
        for terms in (ONE, NINE):
            whole = form.perturb(w, Noise(PID, stream), terms)
            same_bits(form.perturb_rows(w, Noise(PID, stream), terms, rows), whole[rows])


@STREAMS
def test_noise(form, stream):
    """Any stretch of a parameter, alone and after warm."""
    keys = [key for key, _ in NINE]
    whole = philox.noise(keys, PID, stream, 0, 6000, CPU)
    for start, count in ((0, 1), (1, 17), (127, 129), (4095, 1025), (640, 5000)):
        made = form.noise(keys, Noise(PID, stream), start, count, CPU)
        assert len(made) == len(keys)
        for z, expected in zip(made, whole, strict=True):
            same_bits(z, expected[start : start + count])
    form.warm(keys, stream, [(PID, 6000)], CPU)
    same_bits(form.noise(keys[:1], Noise(PID, stream), 5, 100, CPU)[0], whole[0, 5:105])
    room = torch.empty(len(keys), 200)
    for z in form.noise(keys, Noise(PID, stream), 5, 100, CPU, room):  # may be written, whatever was kept
        z.zero_()
    assert not room[:, :100].any()
    for z, expected in zip(form.noise(keys, Noise(PID, stream), 5, 100, CPU, room), whole, strict=True):
        same_bits(z, expected[5:105])


@STREAMS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("update", "decay"), UPDATES)
def test_moments(form, stream, dtype, update, decay):
    """The step of AdaMeZO in registers against the rule in blocks of torch operations."""
    if not isinstance(form, Native):
        pytest.skip("the reference itself")
    keys, powers = [key for key, _ in NINE], (0.49, 0.7, 1.0)
    for count, inside, gradients in (
        (13, False, ((1.0, -2.0, 0.5), (0.25, 3.0, 1.0), (-4.0, 1e-3, 7.0))),
        (5003, True, ((1.0,), (-20.0, 3.0), (1e-4, 1e-5, 1e-6, 1e-7, 0.0, 0.0))),
        (5003, False, ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))),
    ):
        rule = Moments(gradients, powers, powers, -1e-2, 0.0 if not inside else 1e-5, inside)
        one = weights(count, dtype)
        low = torch.zeros(count, dtype=torch.int16) if update == "master" and dtype != torch.float32 else None
        other, lower = one.clone(), None if low is None else low.clone()
        assert form.moments(one, Noise(PID, stream), rule, keys, Write(decay, update, 999), low)
        old = eager.read(other, lower)
        noise = Eager().noise(keys, Noise(PID, stream), 0, count, CPU)
        new = old + eager.decayed(rule(Block("w", 0, old, noise, {})), old, decay)
        eager.store(other, new, PID, 0, Write(decay, update, 999), lower)
        same_bits(one, other)
        if low is not None and lower is not None:
            assert torch.equal(low[~one.isnan()], lower[~one.isnan()])


@STREAMS
def test_many_are_each_alone(form, stream):
    w = weights(5003, torch.float32)
    lists = [[(1, 1e-3)], [(1, -1e-3)], [(2, 0.5), (1, 0.25)], [(3, 1.0)]]
    for result, terms in zip(form.perturb_many(w, Noise(PID, stream), lists), lists, strict=True):
        same_bits(result, Eager().perturb(w, Noise(PID, stream), terms))
    outs = [torch.empty_like(w) for _ in lists]
    for result, out, terms in zip(
        form.perturb_many(w, Noise(PID, stream), lists, outs), outs, lists, strict=True
    ):
        assert result.data_ptr() == out.data_ptr()
        same_bits(out, Eager().perturb(w, Noise(PID, stream), terms))


@STREAMS
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_of_no_terms_among_others_is_zero(form, stream, dtype):
    w = weights(5003, dtype).view(-1, 5003)
    one, none, other = form.perturb_many(w, Noise(PID, stream), [ONE, [], NINE])
    for result, terms in ((one, ONE), (none, []), (other, NINE)):
        same_bits(result, Eager().perturb(w, Noise(PID, stream), terms))
    same_bits(none, (w.float() + 0.0).to(dtype))
    twice = (w.float() + (w.float() + 0.0)).to(dtype)
    same_bits(
        form.perturb_many(w, Noise(PID, stream), [[], ONE], None, AddMomentum(w.float(), (1.0, 0.0)))[0],
        twice,
    )
    same_bits(form.perturb_rows(w, Noise(PID, stream), [], torch.tensor([0])), none)


@pytest.mark.parametrize("row", [-1, 30, 1 << 40])
def test_rows_that_are_not_there_are_refused(form, row):
    w = torch.zeros(30, 5)
    with pytest.raises(IndexError, match="outside the 30 rows"):
        form.perturb_rows(w, Noise(PID, SIGNS), ONE, torch.tensor([3, row]))
    if isinstance(form, Eager):
        form.warm([ONE[0][0]], SIGNS, [(PID, 150)], CPU)
        with pytest.raises(IndexError, match="outside the 30 rows"):
            form.perturb_rows(w, Noise(PID, SIGNS), ONE, torch.tensor([3, row]))


@STREAMS
def test_narrow_row_numbers_of_a_large_table(stream):
    """Elements are counted in 64 bits whatever the row numbers are; the table takes no memory."""
    w = torch.zeros(1, 1 << 16).expand(1 << 17, -1)
    rows = torch.tensor([(1 << 17) - 1, 1 << 15], dtype=torch.int32)
    made = Eager().perturb_rows(w, Noise(PID, stream), [(5, 1.0)], rows)
    for row, z in zip(rows.tolist(), made, strict=True):
        same_bits(z, philox.noise([5], PID, stream, row << 16, 1 << 16, CPU)[0])


def hessian(count):
    """Positive numbers over all sizes that HiZOO's H may have."""
    return torch.logspace(-12, 12, count)[torch.randperm(count, generator=torch.Generator().manual_seed(3))]


def entries_of(kind, w, scales):
    """Of a weight [m, n] or [d], and what they make of a sum: whole tensors, the root in fp64."""
    shape = w.shape if w.dim() == 2 else (w.numel(), 1)
    if kind == "under":
        H = hessian(w.numel()).view(w.shape)
        return DivideBySqrt(H), lambda total, i: total / H.double().sqrt().float()
    if kind == "product":
        R, C = hessian(shape[0]), hessian(shape[1]).sqrt()
        H = (R[:, None] * C).view(w.shape)
        return DivideBySqrtOuter(R, C), lambda total, i: total / H.double().sqrt().float()
    if kind == "within":
        most = torch.tensor([0.02])
        return MaskLarge(w, most), lambda total, i: total * (w.float().abs() <= most)
    m = torch.randn(w.shape, generator=torch.Generator().manual_seed(4))
    return AddMomentum(m, scales), lambda total, i: total + m * f32(scales[i])


def by_hand(w, stream, terms, become, i=0):
    """w + what becomes of Σ scale z, each operation a whole tensor's."""
    total = Eager().perturb(torch.zeros_like(w, dtype=torch.float32), Noise(PID, stream), terms)
    return (w.float() + become(total, i)).to(w.dtype)


ENTRIES = pytest.mark.parametrize("kind", ["under", "product", "within", "plus"])


@STREAMS
@ENTRIES
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_becomes_of_sums(form, stream, kind, dtype):
    for shape in ((1,), (16,), (17,), (513,), (37, 111), (1300, 3), (33001,), (301, 111)):
        if isinstance(form, Eager) and math.prod(shape) > 5000:
            continue  # five blocks are as good as many
        w = weights(math.prod(shape), dtype).view(shape)
        lists = [ONE, [(key, -scale) for key, scale in ONE], NINE]
        entries, become = entries_of(kind, w, (0.25, -0.25, 3.0))
        outs = [torch.empty_like(w) for _ in lists]
        made = form.perturb_many(w, Noise(PID, stream), lists, outs, entries)
        for i, (result, out, terms) in enumerate(zip(made, outs, lists, strict=True)):
            assert result.data_ptr() == out.data_ptr()
            same_bits(result, by_hand(w, stream, terms, become, i))
        same_bits(form.perturb_many(w, Noise(PID, stream), [ONE], None, entries)[0], outs[0])
        same_bits(w, weights(math.prod(shape), dtype).view(shape))


@STREAMS
@ENTRIES
@pytest.mark.parametrize("width", [1, 3, 15, 64, 130, 513])
def test_rows_of_what_becomes_of_sums(form, stream, kind, width):
    rows = torch.tensor([29, 0, 7, 7, 12])
    for dtype in DTYPES:
        w = weights(30 * width, dtype).view(30, width)
        entries, become = entries_of(kind, w, (-2.0,))
        for terms in (ONE, NINE):
            found = form.perturb_rows(w, Noise(PID, stream), terms, rows, entries)
            same_bits(found, by_hand(w, stream, terms, become)[rows])


@STREAMS
@ENTRIES
@pytest.mark.parametrize(("update", "decay"), UPDATES)
def test_moves_by_what_becomes_of_sums(form, stream, kind, update, decay):
    """As whole tensors; with MaskLarge the weights that decide are those before the move."""
    cases = [(dtype, shape) for dtype in DTYPES for shape in ((13,), (2003,), (61, 31))]
    for dtype, shape in cases:
        one = weights(math.prod(shape), dtype).view(shape)
        low = torch.zeros(shape, dtype=torch.int16) if update == "master" and dtype != torch.float32 else None
        other, lower = one.clone(), None if low is None else low.clone()
        total = Eager().perturb(torch.zeros(shape), Noise(PID, stream), NINE)
        eager.add(
            other, entries_of(kind, one.clone(), (7.0,))[1](total, 0), PID, Write(decay, update, 999), lower
        )
        form.move(
            one, Noise(PID, stream), NINE, Write(decay, update, 999), low, entries_of(kind, one, (7.0,))[0]
        )
        same_bits(one, other)
        if low is not None and lower is not None:
            assert torch.equal(low[~one.isnan()], lower[~one.isnan()])


@STREAMS
def test_entries_that_change_nothing(form, stream):
    for dtype in DTYPES:
        w, rows = weights(5003 * 3, dtype).view(5003, 3), torch.tensor([5002, 0, 7])
        ones = torch.ones(w.shape)
        usual, there = form.perturb(w, Noise(PID, stream), NINE), ~w.isnan()
        for entries in (DivideBySqrt(ones), DivideBySqrtOuter(ones[:, 0].contiguous(), ones[0]),
                        MaskLarge(w, torch.tensor([torch.inf])), AddMomentum(ones, (0.0,))):  # fmt: skip
            found = form.perturb_many(w, Noise(PID, stream), [NINE], None, entries)[0]
            same_bits(found[there], usual[there])
            same_bits(form.perturb_rows(w, Noise(PID, stream), NINE, rows, entries), usual[rows])


@STREAMS
def test_entries_that_only_the_reference_takes(form, stream):
    """Of another order in memory, and of a dtype that the fast forms do not know."""
    w, H = weights(35, torch.float32).view(5, 7), hessian(35).view(7, 5).T
    same_bits(
        form.perturb_many(w, Noise(PID, stream), [ONE], None, DivideBySqrt(H))[0],
        by_hand(w, stream, ONE, lambda total, i: total / H.contiguous().double().sqrt().float()),
    )
    wide = torch.arange(35.0, dtype=torch.float64).view(5, 7)
    one, other = (
        f.perturb_many(wide, Noise(PID, stream), [ONE], None, DivideBySqrt(H))[0] for f in (form, Eager())
    )
    assert torch.equal(one, other)


def test_roots():
    """As IEEE has them; torch's own differ on some processors."""
    x = hessian(5003)
    same_bits(roots(x), torch.tensor([math.sqrt(number) for number in x.tolist()]))


@STREAMS
def test_shapes_and_places(form, stream):
    scalar = torch.tensor(0.5)
    assert form.perturb(scalar, Noise(PID, stream), ONE).shape == ()
    w = torch.arange(12.0).view(3, 4)
    out = torch.empty(3, 4)
    assert form.perturb(w, Noise(PID, stream), ONE, out).data_ptr() == out.data_ptr()
    same_bits(
        form.perturb(w.T, Noise(PID, stream), ONE), form.perturb(w.T.contiguous(), Noise(PID, stream), ONE)
    )
    empty = torch.empty(0)
    form.move(empty, Noise(PID, stream), ONE)
    wide = torch.arange(12.0, dtype=torch.float64)  # no dtype of the fast forms
    assert torch.equal(
        form.perturb(wide, Noise(PID, stream), ONE), Eager().perturb(wide, Noise(PID, stream), ONE)
    )


@STREAMS
def test_sums_are_in_the_order_given(form, stream):
    """Reversed terms may differ in the last bit, and do: nothing reorders them silently."""
    w = torch.zeros(5000)
    forwards, backwards = (
        form.perturb(w, Noise(PID, stream), NINE),
        form.perturb(w, Noise(PID, stream), NINE[::-1]),
    )
    assert not torch.equal(forwards, backwards)
    assert torch.allclose(
        forwards, backwards, rtol=0, atol=9 * 6 * 2.0**-24
    )  # nine sums of numbers up to 5.8


def test_kept_noise_is_the_same():
    eager, ids, counts = Eager(), [PID, 3], [300, 700]
    keys = [key for key, _ in NINE]
    for stream in (SIGNS, GAUSSIANS):
        eager.warm(keys, stream, list(zip(ids, counts, strict=True)), CPU)
        for pid, count in zip(ids, counts, strict=True):
            w = weights(count, torch.float32)
            same_bits(
                eager.perturb(w, Noise(pid, stream), NINE), Eager().perturb(w, Noise(pid, stream), NINE)
            )
            rows = torch.tensor([2, 0])
            whole = Eager().perturb(w.view(-1, 100), Noise(pid, stream), NINE)
            same_bits(eager.perturb_rows(w.view(-1, 100), Noise(pid, stream), NINE, rows), whole[rows])
            assert eager._kept  # or the lines above tested nothing


@compiler
@STREAMS
def test_threads_share_the_work_and_not_the_bits(stream):
    w = weights(300_001, torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 3):
            torch.set_num_threads(n)
            both = Native().perturb_many(
                w, Noise(PID, stream), [ONE, NINE], None, DivideBySqrt(hessian(300_001))
            )
            results.append(torch.cat([Native().perturb(w, Noise(PID, stream), ONE), *both]))
    finally:
        torch.set_num_threads(threads)
    same_bits(*results)
    same_bits(results[0][-300_001:], by_hand(w, stream, NINE, entries_of("under", w, ())[1]))


@compiler
def test_a_row_outside_the_matrix_is_an_error():
    with pytest.raises(IndexError, match="30 rows"):
        Native().perturb_rows(torch.zeros(30, 4), Noise(PID, SIGNS), ONE, torch.tensor([30]))


@compiler
def test_a_loop_that_does_not_exist_is_an_error():
    """No method gets there: what native.py hands on has a loop. If one did, its weights would stay as they are."""
    w = torch.ones(40)
    with pytest.raises(RuntimeError, match="no loop for this update of torch"):
        form = Native()
        head = form._head(w, Noise(PID, SIGNS), low=torch.zeros(40, dtype=torch.int16))
        form._apply(head, native._pack_one(tuple(ONE)), (w.data_ptr(),), w)
    assert (w == 1).all()


def test_best_takes_what_there_is():
    assert best(CPU, "eager").name == "eager"
    assert best(CPU).name == ("eager" if Native().reason else "native")
    with pytest.raises(ConfigError, match="auto, eager, native, triton"):
        best(CPU, "fast")
    with pytest.raises(ConfigError, match="CUDA"):
        best(CPU, "triton")
    with pytest.raises(ConfigError, match="CPU tensors"):
        best(torch.device("cuda"), "native")


@pytest.mark.parametrize(("cxx", "said"), [("/nowhere/g++", "no C++ compiler"), ("false", "cannot compile")])
def test_without_a_compiler_the_eager_form_works(monkeypatch, tmp_path, cxx, said):
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setenv("ZO_CACHE", str(tmp_path))
    build.load.cache_clear()
    try:
        form = Native()
        assert said in form.reason
        assert best(CPU).name == "eager"
        with pytest.raises(ConfigError, match="Use kernels = 'auto' or 'eager'"):
            best(CPU, "native")
        w = weights(500, torch.float32)
        same_bits(form.perturb(w, Noise(PID, SIGNS), ONE), Eager().perturb(w, Noise(PID, SIGNS), ONE))
    finally:
        build.load.cache_clear()


def test_a_user_without_a_home_gets_the_eager_form(monkeypatch):
    """As in a container that runs under a number that no passwd file knows."""

    def unknown(number):
        raise KeyError(number)

    for variable in ("HOME", "ZO_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    library, _, reason = build.load.__wrapped__(False)
    assert library is None and ("home directory" in reason or "compiler" in reason)


@compiler
@pytest.mark.slow
def test_two_processes_may_build_at_once(tmp_path):
    code = "from zo.kernels import Native; assert not Native().reason"
    environment = os.environ | {"ZO_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]


def run_triton(device, **environment):
    pytest.importorskip("triton")
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_and_eager.py")), device],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


@pytest.mark.slow
def test_triton_under_the_interpreter():
    run_triton("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_triton_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    run_triton("cuda")


@pytest.mark.gpu
def test_eager_signs_on_a_gpu_are_the_cpus():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    keys = [key for key, _ in NINE]
    there = philox.noise(keys, PID, SIGNS, 0, 10_001, torch.device("cuda"))
    assert torch.equal(there.cpu(), philox.noise(keys, PID, SIGNS, 0, 10_001, CPU))
