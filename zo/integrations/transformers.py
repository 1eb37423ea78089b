"""zo's methods inside transformers' Trainer, and inside trainers derived from it such as TRL's SFTTrainer.

    trainer = ZOTrainer(model, args, train_dataset=rows, data_collator=collator, method=zo.FZOO)
    trainer.train()

    class ZOSFTTrainer(ZOTrainer, SFTTrainer): ...       # TRL's, with its way to prepare data

transformers keeps what it does well: data, evaluation, schedules, callbacks, trackers, checkpoints, the hub. The step
is zo's: forward passes at probes, a record in the journal, one move.
"""

import inspect
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zo.errors import MissingPackage

try:
    import accelerate  # noqa: F401  without it transformers' Trainer is a name that raises when it is called
    from transformers import Trainer
except ImportError as error:
    raise MissingPackage(
        f"zo.integrations.transformers needs the packages transformers and accelerate ({error}): "
        "pip install 'transformers>=5.2,<6' 'accelerate>=1.1'"
    ) from error

import torch
from torch import Tensor, nn

from zo.distributed import Ranks
from zo.errors import ConfigError
from zo.integrations.ignored_options import Request, refuse
from zo.integrations.row_losses import check_losses, objective_of
from zo.integrations.trainer_state import header_of, load_state, open_journal, save_state
from zo.journal import Copy, Journal
from zo.kernels.adam_window import f32
from zo.look import MicroBatches, ModuleLook, Objective
from zo.optimizers import Optimizer
from zo.team import Solo, Team
from zo.training import back_to_agreement


class ZOTrainer(Trainer):
    """A Trainer whose steps are those of a method of zo.

    All positional and named arguments of the trainer behind it are taken as they are. Beside them:

    method: a class such as zo.FZOO, made with learning_rate, weight_decay and seed of TrainingArguments; or an
        optimizer of this model, made by you.
    method_options: further options for a class.
    losses: (model, batch) → losses [B], or (losses, weights), in place of the model's own loss.
    probes_per_forward: how many probes share a model call (zo.ModuleLook).

    zo: the optimizer, from the start of `train` on. look: its look. journal: the records of its steps.

    Raises ConfigError for options that would have no effect, all together.
    """

    model: Any  # transformers' type of it includes None, which it is not after __init__
    zo: Optimizer
    look: ModuleLook
    journal: Journal | Copy | None

    def __init__(
        self,
        *args: Any,
        method: type[Optimizer] | Optimizer,
        method_options: Mapping[str, Any] | None = None,
        losses: Objective | None = None,
        probes_per_forward: int | str = "auto",
        **kwargs: Any,
    ):
        given = inspect.signature(super().__init__).bind_partial(*args, **kwargs).arguments
        options = dict(method_options or {})
        refuse(Request(type(self), given, method, options, losses is not None))
        self.method, self.method_options, self.losses = method, options, losses
        self.probes_per_forward = probes_per_forward
        self.journal = None
        self._team: Team = Solo()
        self._collected: list[Any] = []  # micro-batches of the step
        self._seen: dict[str, float] | None = None  # by the newest step
        self._losses: list[float] = []  # of the steps since the last line of the log
        self._resumed_from: Path | None = None
        self._used = False
        super().__init__(*args, **kwargs)
        self.args.logging_nan_inf_filter = False  # it would show the mean of earlier losses in place of NaN

    # ---- What a run is made of ----

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        # Not wrapped in DistributedDataParallel, whose buckets are as large as the model.
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Makes the method's optimizer, and the one that transformers sees, which holds the learning rate."""
        self.zo = self._make_optimizer()
        self.look = ModuleLook(
            self.model,
            self.losses or objective_of(self.model),
            self.zo,
            probes_per_forward=self.probes_per_forward,
        )
        self.optimizer = _RateHolder(list(self.zo.weights.tensors.values()), self.args.learning_rate)
        return self.optimizer

    def _make_optimizer(self) -> Optimizer:
        if not isinstance(self.method, Optimizer):
            decided = {"lr": self.args.learning_rate, "weight_decay": self.args.weight_decay}
            return self.method(self.model, **decided, **{"seed": self.args.seed, **self.method_options})
        if self._used:
            raise ConfigError(
                "The optimizer that was given has trained already, and holds the state of those steps. Make a new "
                "trainer with a new one, or give the method's class."
            )
        self._used = True
        weights = self.method.weights
        trained = {id(p) for p in self.model.parameters() if p.requires_grad}
        held = [*weights.copies.items(), *weights.low.items()]
        if trained != {id(tensor) for tensor in weights.tensors.values()} or any(
            tensor.device != weights.tensors[name].device for name, tensor in held
        ):
            raise ConfigError(
                "The optimizer that was given holds other tensors than those that this trainer trains: an adapter was "
                "added, the model was moved to another device, or it is another model. Make it of the model as it is "
                "trained, or give the method's class."
            )
        return self.method

    # ---- The step ----

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as Trainer.train does.

        Raises Diverged for losses that are no finite numbers; with the method's on_nan="skip" they are shown.
        """
        self._losses.clear()
        self._collected, self._seen, self._resumed_from, self.journal = [], None, None, None
        team = Ranks(share="own") if self.args.world_size > 1 else Solo()
        try:
            with team as self._team:
                output = super().train(*args, **kwargs)
                if self.journal is not None:
                    with back_to_agreement(team, self.journal, None):
                        team.verify(self.state.global_step, self.zo.weights)
                return output
        finally:
            if self.journal is not None:
                self.journal.close()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Collects the micro-batches of a step; with the last one, takes the step and returns its loss."""
        self.model.train()  # SFTTrainer tells training from evaluation by it; losses are measured in eval mode
        self._collected.append(dict(self._prepare_inputs(inputs)))
        if not self.accelerator.gradient_state.sync_gradients:
            return torch.zeros((), dtype=torch.float32, device=self.args.device)
        batch, self._collected = MicroBatches(self._collected), []
        self._seen = self._take_step(self.state.global_step, batch)
        self._losses.append(self._seen["loss"])
        return torch.tensor(self._seen["loss"], dtype=torch.float32, device=self.args.device)

    def _take_step(self, t: int, batch: MicroBatches) -> dict[str, float]:
        """Looks, records, moves. A step that the journal holds is taken from it, without forward passes."""
        lr = f32(self._get_learning_rate())  # as the journal will hold it
        journal = self._open_journal(t)
        if t < len(journal):
            losses, recorded = journal[t].losses, journal[t].lr
            return self.zo.tell(t, losses, recorded) | {"lr": lr if recorded is None else recorded}
        if not self.look.forward_passes and self.losses is None:
            check_losses(self.model, self.look.objective, batch[0])
        look = self._team.over(self.look, self.zo)
        self._team.begin(t)
        with back_to_agreement(self._team, journal, None):
            losses = self.zo.step(t, batch, look, lr)
        journal.append(losses, lr)
        return {"lr": lr} | self.zo.tell(t, losses, lr)

    def _open_journal(self, t: int) -> Journal | Copy:
        """Returns the run's journal; made, or found again, when the run's first step is taken."""
        if self.journal is None:
            header = header_of(self.zo, self._options())
            self.journal = open_journal(
                Path(str(self.args.output_dir)),
                self._resumed_from,
                t,
                header,
                self.zo.losses_per_step,
                self._team,
            )
        return self.journal

    def _options(self) -> dict[str, Any]:
        """The method's options, its own defaults among them; the rate is in every record."""
        return {
            name: getattr(self.zo, name)
            for name in inspect.signature(type(self.zo)).parameters
            if name not in ("params", "lr", "directions")
        }

    # ---- Checkpoints ----

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and self._team.leads and self.journal is not None:
            save_state(Path(output_dir), self.zo, self.journal, self.state.global_step)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_state(Path(checkpoint), self.zo, self.state.global_step)
            self._resumed_from = Path(checkpoint)

    # ---- What is shown ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs as Trainer does; rate, gradient norm and what else the method saw are those of the newest step.

        grad_norm is the root mean square of the slopes along the directions, which estimates the gradient's norm. It
        is absent for methods that divide by none.
        """
        if self._seen is not None and {"loss", "learning_rate"} <= logs.keys():
            seen = dict(self._seen)
            # transformers' own sum stays NaN once a loss was.
            logs["loss"] = sum(self._losses) / len(self._losses)
            self._losses.clear()
            logs.pop("grad_norm", None)
            if "projected_gradient" in seen:
                logs["grad_norm"] = seen.pop("projected_gradient")
            logs["learning_rate"] = seen.pop("lr")
            logs["forward_passes"] = self.zo.forward_passes * self.state.global_step
            logs.update({name: value for name, value in seen.items() if name != "loss"})
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Returns the operations of a step's forward passes; Trainer's figure is three times that of one."""
        return int(super().floating_point_ops(inputs) * self.zo.forward_passes / 3)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes the card of the trainer behind it, with the method in place of the optimizer that was not used."""
        super().create_model_card(*args, **kwargs)
        path = Path(str(self.args.output_dir)) / "README.md"
        if self.is_world_process_zero() and path.is_file():
            text = path.read_text(encoding="utf-8")
            line = f"- optimizer: {self._method_name()} of zo\n"
            text = re.sub(r"^- optimizer: .*\n", line, text, flags=re.MULTILINE)
            path.write_text(text.rstrip() + "\n\n" + self._card_section(), encoding="utf-8")

    def _method_name(self) -> str:
        method = self.method if isinstance(self.method, type) else type(self.method)
        return method.__name__

    def _card_section(self) -> str:
        lines = [
            "## Method",
            "",
            f"Trained by {self._method_name()} of zo, from losses alone: no gradient was computed.",
            "",
        ]
        if getattr(self, "zo", None) is not None:
            options = ", ".join(f"{name} = {value!r}" for name, value in self._options().items())
            steps, each = self.state.global_step, self.zo.forward_passes
            lines.append(f"- options: {options}")
            lines.append(f"- {steps:,} steps of {each} forward passes, {steps * each:,} in all")
        return "\n".join(lines) + "\n"


class _RateHolder(torch.optim.Optimizer):
    """The optimizer that transformers' schedules, callbacks and checkpoints see: a learning rate, and no moves."""

    def __init__(self, params: list[nn.Parameter], lr: float):
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        """Does nothing: training_step has made the move."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Does nothing: there are no gradients."""
