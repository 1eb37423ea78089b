"""Estimates what a run will need from its configuration, on the meta device: no weights, no data, no GPU.

Memory is traced: the model is built without data, the trained parameters are attached as in the run, and the
objective's forward pass (for first-order methods also its backward pass) runs on shapes, counting every tensor while it
lives. Added to the weights are the optimizer's own state (`Optimizer.state_bytes`), fp32 masters, copies or remainders
of 16-bit weights, first-order gradients, and the executor's buffers for perturbed layers.

Two things are assumed: the length of a row, unless given, and the speed of a GPU.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from experiments.config.model_config import ModelConfig
from experiments.config.peft_config import Mode, Prefix, Prompt
from experiments.config.run_config import RunConfig
from experiments.estimating.memory import Run, weight_bytes
from experiments.models.refusals import check_model
from experiments.models.shapes import skeleton
from experiments.peft import attach
from experiments.tasks.task import class_count
from experiments.training.session import budgeted_steps, trial_optimizer
from zo.optimizers.firstorder import BACKWARD_COST

# Longest row of a task in tokens, its options, and tokens of an option or answer: over up to 2,000 public examples,
# tokenised for BERT; boolq, mnli, wic and sst5 are taken from a similar task.
SIZES: dict[str, tuple[int, int, int]] = {
    "sst2": (58, 2, 1),
    "sst5": (64, 5, 1),
    "trec": (32, 6, 1),
    "snli": (90, 3, 1),
    "mnli": (128, 3, 1),
    "rte": (266, 2, 1),
    "cb": (289, 3, 1),
    "boolq": (512, 2, 1),
    "wsc": (87, 2, 1),
    "wic": (64, 2, 1),
    "multirc": (618, 2, 1),
    "copa": (25, 2, 13),
    "record": (411, 23, 57),
    "squad": (843, 1, 31),
    "drop": (711, 1, 13),
    "sentiment": (18, 2, 1),
    "entailment": (25, 3, 1),
    "question": (27, 1, 2),
}
OTHERS = (256, 2, 4)  # assumed for a user's own task
# An A100 at half of its peak: multiplications per second in 16 and 32 bits, memory bytes per second.
RATES = {2: 150e12, 4: 10e12}
BANDWIDTH = 1e12
GPU_BYTES = 80 * 2**30
PROGRAM = 450 * 2**20  # resident memory of Python, torch and transformers, which counts on a CPU
EVALUATIONS = 10  # on dev in a run, unless stop.every is set


@dataclass(frozen=True)
class Estimate:
    """The needs of a run, in bytes unless stated otherwise.

    parameters, trained: numbers of weights. tokens: assumed length of a row. probes: number that share a model call.
    state: kept between steps = masters (fp32 masters, copies or remainders of 16-bit weights) + moments (the
    optimizer's own). training, evaluation: peaks of a step and of an evaluation beyond weights and state. Parts of a
    step: gradients, activations of the forward pass, update (temporary tensors of torch's update). peak: of the device,
    over the run. inference: weights and one forward pass of a step's batch. gpus: number of 80 GiB GPUs that hold the
    peak. hours: GPU-hours at the assumed rates.
    """

    model: str
    parameters: int
    trained: int
    tokens: int
    probes: int
    weights: int
    state: int
    training: int
    evaluation: int
    peak: int
    gpus: int
    hours: float
    masters: int
    moments: int
    gradients: int
    activations: int
    update: int
    inference: int


def estimate(config: RunConfig, *, tokens: int | None = None) -> Estimate:
    """Estimates the needs of the run of a checked configuration.

    tokens: length of the longest row; None takes the task's from a table. Raises ConfigError for a hub model that is
    neither stored here nor in the table of shapes, and for what `build` would refuse without data or weights.
    """
    choice = config.model
    task = config.task
    check_model(choice, config.peft.name, Path(config.paths.models))
    optimizer = trial_optimizer(config)
    loaded = attach(
        skeleton(choice, class_count(task), Path(config.paths.models)), _without_data(config.peft)
    )
    longest, options, span = SIZES.get(task.name, OTHERS)
    length = min(tokens or task.max_length or longest, loaded.context)
    options = len(task.options) if task.options else options
    run = Run(loaded, task, optimizer, length, options, span)
    sizes = config.batch.size, config.batch.micro, config.evaluate.batch
    rows = min(sizes[0], sizes[1] or sizes[0])
    cpu = _on_cpu(choice)
    probes = run.probes(config.probes_per_forward, rows, cpu)
    weights, masters, moments = (
        weight_bytes(loaded, choice.quantization),
        run.masters(config.update),
        run.moments(),
    )
    step = run.training(rows, probes, cpu)
    evaluation = run.evaluation(min(sizes[2], max(task.test, task.dev, 1)))
    peak = weights + masters + moments + max(step.peak, evaluation)
    return Estimate(
        model=loaded.name,
        parameters=sum(p.numel() for p in loaded.model.parameters()),
        trained=sum(t.numel() for t in run.trained.values()),
        tokens=length,
        probes=probes,
        weights=weights,
        state=masters + moments,
        training=step.peak,
        evaluation=evaluation,
        peak=peak,
        gpus=-(-peak // GPU_BYTES),
        hours=_hours(config, run, sizes[0]),
        masters=masters,
        moments=moments,
        gradients=step.gradients,
        activations=step.activations,
        update=step.update,
        inference=weights + run.inference(rows),
    )


def _without_data(peft: Mode) -> Mode:
    """Replaces virtual tokens' initial values, which come from model weights that are not loaded."""
    return replace(peft, init="random") if isinstance(peft, Prefix | Prompt) else peft


def _on_cpu(choice: ModelConfig) -> bool:
    """Returns True if the run is meant for a CPU.

    This machine does not decide: it may be a login node.
    """
    return choice.device == "cpu" or (choice.device == "auto" and choice.resources.gpus == 0)


def _hours(config: RunConfig, run: Run, size: int) -> float:
    """Returns the GPU-hours of training and evaluation by RATES and BANDWIDTH, or of a budget in minutes."""
    if config.budget.minutes is not None:
        return config.budget.minutes / 60
    optimizer, task = run.optimizer, run.task
    parameters = list(run.loaded.model.parameters())
    numbers, size_bytes = sum(p.numel() for p in parameters), sum(p.nbytes for p in parameters)
    rate = RATES[4 if parameters[0].dtype == torch.float32 else 2]

    def seconds(rows: int, calls: float) -> float:
        return max(2 * numbers * rows * run.tokens / rate, calls * size_bytes / BANDWIDTH)

    rows_per_example = run.distinct
    steps = budgeted_steps(config, optimizer)
    cost = optimizer.forward_passes + BACKWARD_COST * optimizer.backward_passes
    training = seconds(size * (1 if run.answer else rows_per_example), 1) * cost * steps
    evaluations = steps // config.stop.every if config.stop.every else EVALUATIONS
    examples = evaluations * task.dev + 2 * task.test
    new = task.max_new_tokens if task.generated else 1
    return (training + seconds(examples * rows_per_example, examples / config.evaluate.batch * new)) / 3600
