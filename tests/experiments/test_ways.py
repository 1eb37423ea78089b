"""Ways to run a model that take no steps: zero-shot, in context, calibrated."""

import inspect

import pytest

from experiments.baselines.linear_probe import LinearProbe
from experiments.baselines.no_training import NoTraining, ZeroShot
from experiments.config.compose import compose
from experiments.tasks.metrics import wilson
from experiments.training.session import build


def test_a_way_is_abstract_and_its_kinds_are_not():
    assert [inspect.isabstract(kind) for kind in (NoTraining, ZeroShot, LinearProbe)] == [True, False, False]


def test_zero_shot_is_the_evaluation_before_any_training(runs):
    trained = runs("optimizer=fzoo")
    result = runs("optimizer=none")
    assert (result["method"], result["status"]) == ("zeroshot", "finished")
    assert result["before"] == result["after"] == trained["before"]
    assert result["loss_before"] == result["loss_after"] == trained["loss_before"]
    assert (result["steps"], result["forward_passes"], result["backward_passes"]) == (0, 0, 0)
    assert result["trainable_parameters"] == 0 and result["model_sha256"] == result["last_sha256"]
    assert result["eval_forward_passes"] == 1  # 32 examples, evaluated once
    assert result["ci95"] == list(wilson(result["after"], 32))
    assert not (result["folder"] / "model").exists()  # it would be a copy of what there is


def test_what_only_training_reads_does_not_make_another_run(runs):
    first = runs("optimizer=none")
    second = runs("optimizer=none", "budget.forward_passes=900", "batch.size=2", "schedule=constant")
    assert first["config_hash"] == second["config_hash"]
    assert len(runs.results()) == 1


@pytest.mark.parametrize("model", ["tiny-clm", "tiny-mlm"])
def test_minus_the_accuracy_is_trained_by_zeroth_order_methods_alone(runs, capsys, model):
    result = runs("task.objective=metric", f"model={model}", "optimizer=fzoo")
    assert result["loss_before"] == -result["before"] and result["loss_after"] == -result["after"]
    runs("task.objective=metric", f"model={model}", "optimizer=adamw", code=2)
    printed = capsys.readouterr().err
    assert "task.objective=metric" in printed and "minus the accuracy, which has no gradient" in printed


@pytest.mark.parametrize("calibrate", ["null", "icl_sfc"])
def test_in_context_learning_shows_the_first_train_examples(runs, calibrate):
    overrides = ("task=entailment", "optimizer=none", "task.demonstrations=3", f"task.calibrate={calibrate}")
    result = runs(*overrides)
    assert result["method"] == "icl" and result["before"] == result["after"]
    config = compose([*runs.arguments(*overrides)]).config
    assert config is not None
    task = build(config).task
    shown = task.prompts.demonstrations([])  # type: ignore[union-attr]  # a causal model's
    assert shown == ""
    texts = [task.prompts.tokenizer.decode(e.rows[0].ids) for e in task.test]  # type: ignore[union-attr]
    wanted = [e.fields for e in task.train[:3]]
    assert all(all(str(value) in text for value in fields.values()) for fields in wanted for text in texts)
    assert bool(task.test[0].blanks) == (calibrate != "null")
