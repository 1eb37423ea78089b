"""A form of the kernels is tried against the eager form before its first use in a process."""

import pytest
import torch
from torch import nn

from zo import FZOO, MeZO, Weights
from zo.errors import ConfigError
from zo.kernels import Eager, Native, Noise, trial
from zo.noise import GAUSSIANS, SHORT_GAUSSIANS, SIGNS

CPU = torch.device("cpu")


class Wrong(Eager):
    """The eager form but for one number of its moves of bfloat16, and its rows, which do not compile."""

    name = "wrong"

    def move(self, w, *args, **kwargs):
        super().move(w, *args, **kwargs)
        if w.dtype == torch.bfloat16:
            w.view(-1)[5] += 0.5

    def perturb_rows(self, *args, **kwargs):
        raise RuntimeError("PTX was compiled with an unsupported version\nand more")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(trial, "_TRIED", {})


def native():
    form = Native()
    if form.reason:
        pytest.skip(form.reason)
    return form


@pytest.mark.parametrize("stream", [SIGNS, GAUSSIANS, SHORT_GAUSSIANS])
@pytest.mark.parametrize("operation", sorted(trial._CASES))
def test_the_native_form_passes(operation, stream):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert trial.wrong(native(), operation, stream, dtype, CPU) == ""
        assert trial.wrong(Eager(block=128), operation, stream, dtype, CPU) == ""


@pytest.mark.parametrize("operation", sorted(trial._CASES))
def test_a_form_with_other_numbers_is_found(operation):
    """Of one bit of one number that the operation makes."""

    class Off(Native):
        pass

    form = Off()
    if form.reason:
        pytest.skip(form.reason)
    original = getattr(form, operation)

    def off(*args, **kwargs):
        result = original(*args, **kwargs)
        w = args[0]
        first = result[0] if isinstance(result, (list, tuple)) else result
        target = first if isinstance(first, torch.Tensor) else w
        bits = target.view(-1).view(torch.int32 if target.itemsize == 4 else torch.int16)
        bits[7] ^= 1
        return result

    setattr(form, operation, off)
    assert "are not those of the eager form" in trial.wrong(form, operation, GAUSSIANS, torch.float32, CPU)


def test_what_fails_is_left_to_eager_with_a_warning_that_names_it():
    form = trial.tried(Wrong(), CPU, by_name=False)
    w = torch.ones(4, 8).bfloat16()
    expected = w.clone()
    Eager().move(expected, Noise(1, SIGNS), [(3, 0.1)])
    with pytest.warns(UserWarning, match=r"^move of the wrong kernels .* its signs in bfloat16 are not"):
        form.move(w, Noise(1, SIGNS), [(3, 0.1)])
    assert torch.equal(w, expected) and form.name == "wrong (eager: move)"
    rows = torch.tensor([1, 3])
    with pytest.warns(
        UserWarning, match=r"perturb_rows of the wrong kernels.*failed \(RuntimeError: PTX was [^\n]*\)"
    ):
        found = form.perturb_rows(w, Noise(1, SIGNS), [(3, 0.1)], rows)
    assert torch.equal(found, Eager().perturb_rows(w, Noise(1, SIGNS), [(3, 0.1)], rows))
    assert form.name == "wrong (eager: move) (eager: perturb_rows)"


def test_by_name_it_is_refused():
    form = trial.tried(Wrong(), CPU, by_name=True)
    form.move(torch.ones(4), Noise(1, SIGNS), [(3, 0.1)])  # fp32 is right
    with pytest.raises(
        ConfigError, match=r"kernels = 'wrong' cannot be used on cpu: its move .*Use kernels = 'auto'"
    ):
        form.move(torch.ones(4).bfloat16(), Noise(1, SIGNS), [(3, 0.1)])


def test_only_what_is_used_is_tried_and_once():
    optimizer = MeZO(nn.Linear(8, 3))
    if optimizer.weights.backend != "native":
        pytest.skip("no compiler")
    assert trial._TRIED == {}
    for t in range(2):
        optimizer.tell(t, [1.0, 0.9])
    assert {case[1] for case in trial._TRIED} == {"move"} and set(trial._TRIED.values()) == {""}
    assert {case[2] for case in trial._TRIED} == {optimizer.directions.stream}


def test_the_library_may_be_wrong_and_the_run_right(monkeypatch):
    """As with another compiler: every move of the library is off, and auto gives the bits of eager."""
    if native().reason:
        pytest.skip("no compiler")
    original = Native.move

    def off(self, w, *args, **kwargs):
        original(self, w, *args, **kwargs)
        w.view(-1)[0] += 1.0

    monkeypatch.setattr(Native, "move", off)
    shas = []
    for kernels in ("eager", "auto"):
        torch.manual_seed(0)
        optimizer = FZOO(Weights(nn.Linear(8, 3), kernels=kernels), n=4)
        if kernels == "auto":
            with pytest.warns(UserWarning, match="move of the native kernels"):
                optimizer.tell(0, [1.0, 0.9, 1.1, 1.2, 0.8])
            assert optimizer.weights.backend == "native (eager: move)"
        else:
            optimizer.tell(0, [1.0, 0.9, 1.1, 1.2, 0.8])
        shas.append(optimizer.weights.sha256())
    assert shas[0] == shas[1]


def test_a_self_check_names_every_operation_that_differs():
    assert trial.self_check(Eager(), CPU) == {}
    differs = trial.self_check(Wrong(), CPU)
    assert {name.partition(",")[0] for name in differs} == {"move", "perturb_rows"}
    assert {name for name in differs if name.startswith("move")} == {
        "move, signs, bfloat16",
        "move, gaussians, bfloat16",
    }


def test_the_eager_form_is_checked_on_devices_that_nobody_tested(monkeypatch):
    """A build for ROCm calls its devices cuda. torch's meta device has no numbers, so nothing agrees there."""
    from zo.kernels import best

    assert trial.eager_differs(CPU) == ""
    assert "noise" in trial.eager_differs(torch.device("meta"))
    if torch.cuda.is_available():
        pytest.skip("this machine's CUDA device passes")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(ConfigError, match=r"cuda cannot be used: .* Use the CPU"):
        best(torch.device("cuda"))
    assert best(CPU).name != "eager" or Native().reason


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_eager_form_agrees_on_a_gpu():
    assert trial.eager_differs(torch.device("cuda")) == ""
