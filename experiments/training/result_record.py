"""Builds what result.json says of a run that has ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.evaluation import Evaluation
from experiments.rundir.metric_rows import learned_nothing
from experiments.tasks.draws import draw_digest
from experiments.training.recorder import Recorder
from experiments.training.session import Session


@dataclass(frozen=True)
class Ending:
    """How a run ended. reason: why it diverged. selected_step: after how many steps the reported weights were reached.

    after: of the reported weights. last_sha256: of the weights after the last step. peak: bytes of memory.
    fitted: forward passes of a way that takes no steps. checks: forward passes with which a look that another one took
    the place of had checked itself.
    """

    status: str
    reason: str | None
    steps: int
    selected_step: int
    after: Evaluation
    last_sha256: str
    seconds: float
    peak: int
    fitted: int
    checks: int


def result_record(
    session: Session,
    recorder: Recorder,
    ending: Ending,
    *,
    draw: Mapping[str, Any],
    ranks: int,
    retry_smaller: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns the contents of result.json, but for the digest of the answers.

    session: one that holds the reported weights. draw: which examples the run drew. ranks: its processes.
    retry_smaller: what was found to fit into memory.
    """
    optimizer = session.optimizer
    before = recorder.before or {}
    result = {
        "status": ending.status,
        "reason": ending.reason,
        "method": session.method,
        "model": session.loaded.name,
        "task": session.task.name,
        "peft": session.config["peft"]["name"],
        "seed": session.config["seed"],
        "config_hash": session.hash,
        "metric": ending.after.metric,
        "before": before.get("value"),
        "after": ending.after.value,
        "majority": ending.after.majority,
        "random": ending.after.random,
        "n_test": ending.after.n,
        "data": session.task.summary.record(),
        "ci95": ending.after.ci95,
        "unscored": ending.after.unscored,
        "loss_before": before.get("loss"),
        "loss_after": ending.after.loss,
        "best_dev": recorder.best_value,
        "best_dev_loss": recorder.best_loss,
        "selected_step": ending.selected_step,
        "steps": ending.steps,
        "skipped_steps": optimizer.skipped,
        "idle_steps": optimizer.idle,
        "forward_passes": ending.steps * optimizer.forward_passes + ending.fitted,
        "backward_passes": ending.steps * optimizer.backward_passes,
        "eval_forward_passes": recorder.eval_forward_passes + ending.after.forward_passes,
        "check_forward_passes": ending.checks + session.look.check_forward_passes,
        "forward_passes_per_step": session.step_cost,
        "train_mode": bool(getattr(optimizer, "dropout", False)),
        "dropout": session.dropout,
        "draw": draw,
        "draw_sha256": draw_digest(draw),
        "sequential_because": session.look.sequential_because,
        "ranks": ranks,
        "retry_smaller": retry_smaller,
        "tokens": session.token_count()(ending.steps),
        "seconds": ending.seconds,
        "gpu_hours": recorder.gpu_hours(ending.seconds),
        "peak_memory_bytes": ending.peak,
        "trainable_parameters": optimizer.weights.numel if session.steps or ending.fitted else 0,
        "kernels": optimizer.weights.backend,
        "attention": session.loaded.attention,
        "model_sha256": optimizer.weights.sha256(),
        "last_sha256": ending.last_sha256,
    }
    return result | {"learned_nothing": learned_nothing(result, recorder.dev_values)}
