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
        int, key("Draws everything that is drawn, but for what `seeds` fixes.", ge=0, lt=2**32), UNHASHED
    ] = 0
    seeds: Annotated[Seeds, key("A number fixes a part of what is drawn; null follows `seed`.")]
    budget: Annotated[Budget, key("How long to train: exactly one is set.")]
    batch: Annotated[Batch, key("Examples a step.")]
    probes_per_forward: Annotated[
        Literal["auto", "all"] | Annotated[int, key("", ge=1, le=10**7)],
        key("How many probes share one call of the model; same losses, other speed and memory."),
        UNHASHED,
    ] = "auto"
    update: Annotated[
        Literal["auto", "nearest", "stochastic", "master"],
        key("How 16-bit weights take a move; auto: master in first-order methods, else nearest."),
    ] = "auto"
    kernels: Annotated[
        Literal["auto", "eager", "native", "triton"],
        key("The code that makes the noise; the numbers are the same."),
        UNHASHED,
    ] = "auto"
    evaluate: Annotated[Evaluate, key("Evaluation on dev and test."), UNHASHED]
    stop: Annotated[Stop, key("When dev is evaluated, and when training ends early.")]
    select: Annotated[
        Literal["last", "best"], key("Which weights are reported and saved: the last, or the best on dev.")
    ] = "last"
    select_by: Annotated[
        Literal["metric", "loss"], key("What makes weights the best on dev, for select=best.")
    ] = "metric"
    checkpoint: Annotated[Checkpoint, key("Snapshots beside the journal."), UNHASHED]
    ranks: Annotated[Ranks, key("How several processes share a run."), UNHASHED]
    threads: Annotated[
        int | None,
        key(
            "Threads of the CPU; null: one for models under 2 million weights, else as many as torch takes.",
            ge=1,
            le=65_536,
        ),
        UNHASHED,
    ] = None
    paths: Annotated[Paths, key("Where things go."), UNHASHED]
    save: Annotated[bool, key("Whether the trained model is written into the run's folder."), UNHASHED] = True
    experiment: Annotated[
        str, key("The family of runs this one belongs to: the first folder below paths.runs."), UNHASHED
    ] = "default"
    model: Annotated[ModelConfig, key("Which model, and how it is loaded.")]
    task: Annotated[TaskConfig, key("Where examples come from, and how they are put to a model.")]
    cluster: Annotated[Cluster, key("The site of launcher=slurm, in sbatch's words."), UNHASHED] = field(
        default_factory=Cluster
    )
    peft: Annotated[Mode, key("Which parameters are trained.")]
    launcher: Annotated[Launcher, key("Where runs go."), UNHASHED] = field(
        default_factory=lambda: Local("local")
    )
    tracker: Annotated[Tracking, key("Where else a run's numbers go."), UNHASHED] = field(
        default_factory=lambda: Nothing("none")
    )
    optimizer: Annotated[Call, key("The method; its keys are its constructor's arguments.")]
    schedule: Annotated[Call, key("The learning rate over the run.")]

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
        """Returns what a run's folder keeps: all but where the run was sent."""
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
