"""Declares result.json and builds it for a run that has ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, get_args, get_type_hints

from experiments.evaluation import Evaluation
from experiments.rundir.metric_rows import learned_nothing
from experiments.tasks.draws import draw_digest
from experiments.training.recorder import Recorder
from experiments.training.session import Session


@dataclass(frozen=True)
class Ending:
    """Holds the outcome of a run. reason: why it diverged. selected_step: step after which the weights were reached.

    after: the evaluation of the reported weights. last_sha256: digest of the weights after the last step. peak: memory
    in bytes. fitted: forward passes of a baseline that takes no steps. checks: forward passes with which the look
    checked itself, if another session has replaced it.
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


@dataclass(frozen=True)
class Result:
    """Declares the keys of result.json in their order; each annotation describes its key, with the unit."""

    status: Annotated[str, "finished, or diverged: losses or scores that are no finite numbers"]
    reason: Annotated[str | None, "why it diverged"]
    method: Annotated[str, "the optimizer's name in tables; zeroshot or icl where nothing is trained"]
    model: Annotated[str, "the model's name"]
    task: Annotated[str, "the task's name"]
    peft: Annotated[str, "the fine-tuning mode: which parameters were trained"]
    seed: Annotated[int, "the seed"]
    config_hash: Annotated[str, "SHA-256 (hex) of all that decides the result but the seed"]
    metric: Annotated[str, "the task's metric"]
    before: Annotated[float | None, "the metric on test before training, a fraction"]
    after: Annotated[
        float | None,
        "the metric on test of the reported weights, a fraction; null without any score",
    ]
    majority: Annotated[float | None, "the metric of always giving the most frequent answer, a fraction"]
    random: Annotated[float | None, "the metric of guessing, a fraction"]
    n_test: Annotated[int, "test examples"]
    data: Annotated[Mapping[str, Any], "how many examples there are, and how labels are spread"]
    ci95: Annotated[Any, "Wilson's 95 % interval of `after`"]
    unscored: Annotated[int, "test examples whose scores are no finite numbers"]
    loss_before: Annotated[float | None, "the loss on test before training"]
    loss_after: Annotated[float | None, "the loss on test of the reported weights"]
    best_dev: Annotated[float | None, "the best metric on dev, a fraction"]
    best_dev_loss: Annotated[float | None, "the loss of the best evaluation on dev"]
    selected_step: Annotated[int, "steps after which the reported weights were reached"]
    steps: Annotated[int, "steps taken"]
    skipped_steps: Annotated[int, "steps without a move because a loss was no finite number"]
    idle_steps: Annotated[int, "steps without a move because the losses were too close to each other"]
    forward_passes: Annotated[int, "forward passes of training"]
    backward_passes: Annotated[int, "backward passes of training"]
    eval_forward_passes: Annotated[int, "forward passes of evaluation"]
    check_forward_passes: Annotated[int, "forward passes with which the executor checked itself"]
    forward_passes_per_step: Annotated[
        int, "forward passes that a step counts for; a backward pass counts as three"
    ]
    train_mode: Annotated[bool, "whether the model trained in train mode"]
    dropout: Annotated[float, "the largest probability of dropout in training"]
    draw: Annotated[Mapping[str, Any], "digests and seeds of what was drawn, part by part"]
    draw_sha256: Annotated[str, "digest of `draw`"]
    sequential_because: Annotated[str | None, "why probes were evaluated one by one; null if stacked"]
    ranks: Annotated[int, "processes that shared the run"]
    retry_smaller: Annotated[
        Mapping[str, Any] | None, "the batch sizes that fit after memory ran out; null if it did not"
    ]
    tokens: Annotated[int, "tokens of training"]
    seconds: Annotated[float, "seconds of training and evaluation"]
    gpu_hours: Annotated[float, "GPU-hours of these"]
    peak_memory_bytes: Annotated[int, "the peak memory of the largest process, in bytes"]
    trainable_parameters: Annotated[int, "weights that were trained"]
    kernels: Annotated[str, "the code that computed noise and moves: eager, native or triton"]
    attention: Annotated[str | None, "the code that computed attention"]
    model_sha256: Annotated[str, "digest of the reported weights"]
    last_sha256: Annotated[str, "digest of the weights after the last step"]
    learned_nothing: Annotated[str | None, "a sentence if the run seems to have learned nothing"]
    warnings: Annotated[Sequence[str], "warnings of all processes"]
    answers_sha256: Annotated[str, "digest of answers.json"]

    def as_dict(self) -> dict[str, Any]:
        """Returns the contents of result.json."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}


def result_table() -> str:
    """Returns the Markdown table of result.json's keys."""
    declared = get_type_hints(Result, include_extras=True)
    rows = [f"| `{name}` | {get_args(hint)[1]} |" for name, hint in declared.items()]
    return "\n".join(["| key | what it is |", "|---|---|", *rows]) + "\n"


def result_record(
    session: Session,
    recorder: Recorder,
    ending: Ending,
    *,
    draw: Mapping[str, Any],
    ranks: int,
    retry_smaller: Mapping[str, Any] | None,
    warnings: Sequence[str],
    answers_sha256: str,
) -> Result:
    """Returns the contents of result.json.

    session: the one with the reported weights. draw: which examples the run drew. ranks: the number of its processes.
    retry_smaller: the batch sizes that fit after memory ran out.
    """
    optimizer = session.optimizer
    before = recorder.before or {}
    result = Result(
        status=ending.status,
        reason=ending.reason,
        method=session.method,
        model=session.loaded.name,
        task=session.task.name,
        peft=session.config.peft.name,
        seed=session.config.seed,
        config_hash=session.hash,
        metric=ending.after.metric,
        before=before.get("value"),
        after=ending.after.value,
        majority=ending.after.majority,
        random=ending.after.random,
        n_test=ending.after.n,
        data=session.task.summary.record(),
        ci95=ending.after.ci95,
        unscored=ending.after.unscored,
        loss_before=before.get("loss"),
        loss_after=ending.after.loss,
        best_dev=recorder.best_value,
        best_dev_loss=recorder.best_loss,
        selected_step=ending.selected_step,
        steps=ending.steps,
        skipped_steps=optimizer.skipped,
        idle_steps=optimizer.idle,
        forward_passes=ending.steps * optimizer.forward_passes + ending.fitted,
        backward_passes=ending.steps * optimizer.backward_passes,
        eval_forward_passes=recorder.eval_forward_passes + ending.after.forward_passes,
        check_forward_passes=ending.checks + session.look.check_forward_passes,
        forward_passes_per_step=session.step_cost,
        train_mode=bool(getattr(optimizer, "dropout", False)),
        dropout=session.dropout,
        draw=draw,
        draw_sha256=draw_digest(draw),
        sequential_because=session.look.sequential_because,
        ranks=ranks,
        retry_smaller=retry_smaller,
        tokens=session.token_count()(ending.steps),
        seconds=ending.seconds,
        gpu_hours=recorder.gpu_hours(ending.seconds),
        peak_memory_bytes=ending.peak,
        trainable_parameters=optimizer.weights.numel if session.steps or ending.fitted else 0,
        kernels=optimizer.weights.backend,
        attention=session.loaded.attention,
        model_sha256=optimizer.weights.sha256(),
        last_sha256=ending.last_sha256,
        learned_nothing=None,
        warnings=list(warnings),
        answers_sha256=answers_sha256,
    )
    return replace(result, learned_nothing=learned_nothing(result.as_dict(), recorder.dev_values))
