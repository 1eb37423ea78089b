"""Out of memory: the step is taken again, smaller, and the result is the same."""

import json
import weakref

import pytest
import torch

import experiments.training.run
from experiments.training.oom import out_of_memory, retry_smaller


@pytest.fixture
def limited(monkeypatch):
    """Runs whose model refuses more rows at once than `limit`, as a GPU does that is full."""
    build, seen = experiments.training.run.build, {"limit": 10**9, "refused": 0, "largest": 0}

    def small_build(*args):
        session = build(*args)

        def refuse(module, args, kwargs):
            rows = kwargs["input_ids"].shape[0]
            if rows > seen["limit"]:
                seen["refused"] += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            seen["largest"] = max(seen["largest"], rows)

        session.loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
        return session

    monkeypatch.setattr(experiments.training.run, "build", small_build)
    return seen


@pytest.mark.slow
def test_fewer_probes_a_forward_give_the_same_bits(runs, limited, capsys):
    alone = runs("probes_per_forward=all", "task.test=8", "task.dev=8")
    limited["limit"] = 12  # a step of 9 probes on 4 examples, whose two options share a row, is 36 rows
    less = runs("probes_per_forward=all", "task.test=8", "task.dev=8", "--rerun")
    assert limited["refused"] == 2  # 9 to 4 to 2 probes, and then it stays
    assert less["retry_smaller"] == {"probes_per_forward": 2, "micro": None, "evaluate": 64}
    assert json.loads((less["folder"] / "memory.json").read_text())["found"] == less["retry_smaller"]
    assert less["last_sha256"] == alone["last_sha256"] and alone["retry_smaller"] is None
    assert less["forward_passes"] == alone["forward_passes"]
    assert "Out of memory: again with probes_per_forward=2" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("method", [["optimizer=mezo"], ["optimizer=adamw", "optimizer.dropout=false"]])
def test_then_smaller_pieces_of_batches_and_evaluations(runs, limited, method):
    alone = runs(*method)
    limited["limit"] = 2  # rows: 2 examples, whose options share a row
    less = runs(*method, "--rerun")
    assert (
        less["retry_smaller"]["micro"] == 2 and less["retry_smaller"]["evaluate"] == 2
    )  # options share a prompt
    assert less["loss_after"] == pytest.approx(alone["loss_after"], rel=1e-4)
    assert (less["forward_passes"], less["steps"]) == (alone["forward_passes"], alone["steps"])


@pytest.mark.slow
def test_what_was_found_is_kept_until_something_else_is_asked_for(runs, stopped, limited):
    """A step of MeZO's two probes on 4 examples, whose two options share a row, is 8 rows."""
    limited["limit"] = 4
    for steps in (3, 5):
        stopped(steps, "optimizer=mezo", "probes_per_forward=all")
        assert json.loads((runs.only() / "memory.json").read_text())["found"]["probes_per_forward"] == 1
    found = limited["refused"]
    limited["limit"] = 8
    result = runs("optimizer=mezo", "probes_per_forward=2", "evaluate.batch=8")
    assert result["retry_smaller"] is None and limited["refused"] == found
    assert limited["largest"] == 8  # two probes again, and not one


@pytest.mark.parametrize("optimizer", ["fzoo", "adamw"])
def test_the_last_model_is_gone_before_that_of_the_best_step_is_built(runs, monkeypatch, optimizer):
    build, models = experiments.training.run.build, []

    def watched(*args):
        assert [model() for model in models if model() is not None] == []
        session = build(*args)
        models.append(weakref.ref(session.loaded.model))
        session.look.sequential_because = f"of look {len(models)}"  # which the first one knows, that looked
        return session

    monkeypatch.setattr(experiments.training.run, "build", watched)
    result = runs(f"optimizer={optimizer}", "optimizer.lr=0.5", "schedule=constant", "select=best")
    assert result["selected_step"] < 12 and len(models) == 2
    assert result["sequential_because"] == "of look 1"


@pytest.mark.slow
def test_what_cannot_get_smaller_fails(runs, limited):
    limited["limit"] = 0
    with pytest.raises(torch.OutOfMemoryError):
        runs("task.test=4")


def test_other_errors_are_not_taken_for_it():
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(RuntimeError, match="shape"):
        retry_smaller(lambda: torch.zeros(2).view(3), lambda: True)
