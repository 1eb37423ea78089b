"""The configuration of a run, parsed once: frozen, typed, complete.

`compose` makes one from a command line and `load_config` from a run's folder; everything behind takes it.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, Literal

from experiments.config.key import UNHASHED, dataclass_in, hints, key
from experiments.config.launcher_config import LAUNCHERS, Cluster, Launcher, Local
from experiments.config.model_config import ModelConfig
from experiments.config.parsing import check_values, read
from experiments.config.peft_config import MODES, Mode
from experiments.config.run_options import Batch, Budget, Checkpoint, Evaluate, Paths, Ranks, Seeds, Stop
from experiments.config.task_config import TaskConfig
from experiments.config.tracker_config import TRACKERS, Nothing, Tracking
from zo.errors import ConfigError

LAUNCHED_BY = ("launcher", "cluster")  # sections that say where a run goes, which its folder does not keep


@dataclass(frozen=True)
class Call:
    """A section with `_target_`: the class to call, and its arguments by name."""

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lr(self) -> float:
        """The learning rate of an optimizer that has one."""
        return self.options["lr"]

    def as_dict(self) -> dict[str, Any]:
        """Returns the section as YAML has it."""
        return {"_target_": self.target, **self.options}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a user chooses of a run. The order of the fields is that of config.yaml in a run's folder."""

    seed: Annotated[
        int, key("Seed of all random numbers that `seeds` does not fix.", ge=0, lt=2**32), UNHASHED
    ] = 0
    seeds: Annotated[Seeds, key("Seeds of single parts of a run; null follows `seed`.")]
    budget: Annotated[Budget, key("Length of training; set exactly one.")]
    batch: Annotated[Batch, key("Examples per step.")]
    probes_per_forward: Annotated[
        Literal["auto", "all"] | Annotated[int, key("", ge=1, le=10**7)],
        key("Probes evaluated in one call of the model; changes speed and memory, not the losses."),
        UNHASHED,
    ] = "auto"
    update: Annotated[
        Literal["auto", "nearest", "stochastic", "master"],
        key(
            "Rounding of updates to 16-bit weights; auto: master (fp32 copies) in first-order methods, else nearest."
        ),
    ] = "auto"
    kernels: Annotated[
        Literal["auto", "eager", "native", "triton"],
        key("Implementation of the random numbers; all give the same bits."),
        UNHASHED,
    ] = "auto"
    evaluate: Annotated[Evaluate, key("Evaluation on dev and test."), UNHASHED]
    stop: Annotated[Stop, key("When to evaluate on dev, and when to stop early.")]
    select: Annotated[
        Literal["last", "best"], key("Weights to report and save: the last, or the best on dev.")
    ] = "last"
    select_by: Annotated[Literal["metric", "loss"], key("What select=best compares on dev.")] = "metric"
    checkpoint: Annotated[Checkpoint, key("Snapshots of the weights beside the journal."), UNHASHED]
    ranks: Annotated[Ranks, key("How several processes share one run."), UNHASHED]
    threads: Annotated[
        int | None,
        key(
            "CPU threads; null: one for models with fewer than 2 million weights, else torch's default.",
            ge=1,
            le=65_536,
        ),
        UNHASHED,
    ] = None
    paths: Annotated[Paths, key("Folders of runs and models."), UNHASHED]
    save: Annotated[bool, key("Write the trained model into the run's folder."), UNHASHED] = True
    experiment: Annotated[
        str, key("Name of this family of runs: the first folder below paths.runs."), UNHASHED
    ] = "default"
    model: Annotated[ModelConfig, key("The model and how it is loaded.")]
    task: Annotated[TaskConfig, key("The examples and how a model sees them.")]
    cluster: Annotated[Cluster, key("Settings of launcher=slurm, named as in sbatch."), UNHASHED] = field(
        default_factory=Cluster
    )
    peft: Annotated[Mode, key("The parameters that are trained.")]
    launcher: Annotated[Launcher, key("Where runs are executed."), UNHASHED] = field(
        default_factory=lambda: Local("local")
    )
    tracker: Annotated[
        Tracking, key("Experiment tracker that gets a copy of the run's numbers."), UNHASHED
    ] = field(default_factory=lambda: Nothing("none"))
    optimizer: Annotated[Call, key("The optimizer; its keys are its constructor's arguments.")]
    schedule: Annotated[Call, key("Learning-rate schedule.")]

    def __post_init__(self) -> None:
        check_values(self, "")

    @property
    def trains_until_clock(self) -> bool:
        """Returns whether the budget is one of minutes."""
        return self.budget.minutes is not None

    def as_dict(self) -> dict[str, Any]:
        """Returns the whole configuration as nested mappings and lists, as YAML has it."""
        return {spec.name: plain(getattr(self, spec.name)) for spec in fields(self)}

    def recorded(self) -> dict[str, Any]:
        """Returns the part that a run's folder keeps: all but launcher and cluster."""
        return {name: value for name, value in self.as_dict().items() if name not in LAUNCHED_BY}

    def with_seed(self, seed: int) -> "RunConfig":
        """Returns the configuration of another seed."""
        return replace(self, seed=seed)


CALLS = ("optimizer", "schedule")  # sections that call a constructor
KINDS: dict[str, dict[str, Any]] = {
    "peft": MODES, "launcher": LAUNCHERS, "tracker": TRACKERS
}  # sections with a dataclass for each name  # fmt: skip


def parse(values: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration that nested mappings say. Raises ConfigError that lists every problem."""
    declared = hints(RunConfig)
    problems: list[str] = []
    parts: dict[str, Any] = {}
    for name, value in values.items():
        try:
            parts[name] = parse_section(name, value, declared.get(name))
        except ConfigError as error:
            problems.append(str(error))
    missing = [f.name for f in fields(RunConfig) if f.name not in values and _required(f)]
    if missing and not problems:
        problems.append(f"The configuration has no {', '.join(missing)}.")
    if problems:
        raise ConfigError("\n".join(problems))
    return RunConfig(**parts)


def parse_section(name: str, value: Any, hint: Any = None) -> Any:
    """Returns one section of the configuration, typed; a plain value is returned as it is."""
    hint = hints(RunConfig).get(name) if hint is None else hint
    if hint is None:
        raise ConfigError(f"{name}: there is no such key.")
    if name in CALLS and isinstance(value, Mapping):
        return Call(str(value.get("_target_")), {k: plain(v) for k, v in value.items() if k != "_target_"})
    if name in KINDS and isinstance(value, Mapping):
        kinds = KINDS[name]
        if value.get("name") not in kinds:
            raise ConfigError(f"{name}.name={value.get('name')}: allowed are {', '.join(kinds)}.")
        return read(kinds[value["name"]], value, name)
    kind = dataclass_in(hint)
    return read(kind, value, name) if kind is not None and isinstance(value, Mapping) else value


def _required(spec: Any) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def plain(value: Any) -> Any:
    """Returns a value as YAML and JSON know it: dataclasses and mappings as dict, sequences as list."""
    if isinstance(value, Call):
        return value.as_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {spec.name: plain(getattr(value, spec.name)) for spec in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
