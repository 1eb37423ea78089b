"""A step asks once what holds for all its probes: the interpreter's calls of a step are counted, and bounded."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

import zo
from zo import FZOO, AdaMeZO, MeZO, ModuleLook, Weights
from zo.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "experiments" / "world" / "tiny-clm"
OURS = str(Path(zo.__file__).parent)
# Their answers are the same for every probe and step of a kind whose numbers are those of a stream as they are.
QUESTIONS = {
    f"{owner}.{name}"
    for owner in ("Directions", "Gaussian", "Rademacher")
    for name in ("terms", "plain", "entries", "factors", "total")
} | {"id_of", "best", "NamedNoise.kernels", "NamedNoise._way", "_choice", "Weights._own"}


def losses(model, ids):
    logits = model.lm_head(model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1])
    each = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return each.view(len(ids), -1).mean(1)


def calls_of_a_step(method):
    """How often each function of zo is called in one step that repeats no comparison of stacks (those are 2^k)."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(SHIPPED)).eval()
    try:
        optimizer = method(Weights(model, kernels="native"))
    except ConfigError as error:
        pytest.skip(str(error))
    look = ModuleLook(model, losses, optimizer)
    ids = torch.randint(5, 500, (4, 16), generator=torch.Generator().manual_seed(0))
    calls = Counter()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            calls[frame.f_code.co_qualname] += 1

    for t in range(13):  # AdaMeZO's window is full, and the last is no comparison
        if t == 12:
            sys.setprofile(note)
        try:
            optimizer.tell(t, optimizer.step(t, ids, look))
        finally:
            sys.setprofile(None)
    assert look.sequential_because is None, "the stack is what is counted"
    return calls, len(optimizer.weights.tensors)


@pytest.mark.parametrize("method", [FZOO, MeZO, AdaMeZO])
def test_what_cannot_change_is_not_asked_in_a_step(method):
    calls, _ = calls_of_a_step(method)
    assert {name: count for name, count in calls.items() if name in QUESTIONS} == {}


@pytest.mark.parametrize(
    ("method", "before", "a_tensor"), [(FZOO, 9389, 62), (MeZO, 4300, 40), (AdaMeZO, 6597, 46)]
)
def test_a_step_makes_few_calls(method, before, a_tensor):
    """A bound for each tensor, a tenth above what is needed; `before` is what a step took when everything was asked.

    To make a tensor for all probes takes about 15 calls, of a large one 7 for each probe; to move it takes 7. The rest
    is the stack: each site cuts its input into one part for each probe. One question more for every tensor and probe
    would be 52 · 9 = 468 calls of FZOO, nearly twice the room that is left.
    """
    calls, tensors = calls_of_a_step(method)
    assert tensors == 52
    assert sum(calls.values()) <= a_tensor * tensors < before / 2, calls.most_common(10)
