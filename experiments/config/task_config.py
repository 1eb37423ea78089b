"""The section `task`: where examples come from and how they are put to a model. Light to import.

The YAML files in conf/task hold these fields and no others; problems_of lists what is wrong before data are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from experiments.config.key import LARGE, UNHASHED, key, wrong_values
from experiments.config.parsing import check, check_values
from experiments.config.row_functions import FUNCTIONS
from experiments.config.template import Template


@dataclass(frozen=True)
class Source:
    """The source of examples: a task of the built-in world, or two splits of a data set of the hub."""

    world: Annotated[str | None, key("Name of a built-in task.")] = None
    hub: Annotated[str | None, key("Id of a data set on the hub.")] = None
    subset: Annotated[str | None, key("Subset of the hub's data set.")] = None
    revision: Annotated[str | None, key("Commit, tag or branch on the hub; null: the newest.")] = None
    train: Annotated[str, key("Split that train and dev are drawn from.")] = "train"
    test: Annotated[
        str | Sequence[str],
        key("Split that test is drawn from; of several names the first that exists."),
    ] = "validation"

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the split that test examples come from: a folder's first there is, of the hub the first."""
        return (self.test,) if isinstance(self.test, str) else tuple(self.test)


@dataclass(frozen=True)
class Causal:
    """Text before an option or answer, and the text that it adds."""

    prompt: Annotated[str, key("Text before an option or answer.")]
    answer: Annotated[str, key("Text that an option or answer adds.")]
    sfc: Annotated[str | None, key("Prompt without an input, for task.calibrate.")] = None


@dataclass(frozen=True)
class Masked:
    """Text with {mask} where the option stands."""

    text: Annotated[str, key("Text with {mask} in place of the option.")]
    limits: Annotated[Mapping[str, int] | None, key("Most tokens of a field, by its name.")] = None
    max_length: Annotated[
        int | None, key("Most tokens of a row; null: the model's limit.", ge=2, le=LARGE)
    ] = None

    def __post_init__(self) -> None:
        check_values(self, "task.templates.masked")


@dataclass(frozen=True)
class Classified:
    """A sentence, or a pair of sentences."""

    text: Annotated[str, key("First sentence.")]
    pair: Annotated[str | None, key("Second sentence of a pair.")] = None


@dataclass(frozen=True)
class Templates:
    """One template a model family; null where the task cannot be put to that family."""

    causal: Annotated[Causal | None, key("Template for causal models.")] = None
    masked: Annotated[Masked | None, key("Template for masked models.")] = None
    classifier: Annotated[Classified | None, key("Template for classifiers.")] = None


@dataclass(frozen=True)
class TaskConfig:
    """A task in strings. Without options or candidates, the answer is generated."""

    name: Annotated[str, key("Name in folders and tables.")]
    columns: Annotated[Mapping[str, str | Sequence[str]], key("Columns of the data by field.")]
    templates: Annotated[Templates, key("Templates by family of model.")]
    source: Annotated[Source, key("Source of the examples; its rows enter the hash."), UNHASHED] = field(
        default_factory=Source
    )
    data_dir: Annotated[str | None, key("Folder with your own data, in place of the source."), UNHASHED] = (
        None
    )
    labels: Annotated[
        Sequence[Any] | Mapping[str, Sequence[Any]] | None,
        key(
            "Values of the label column in the order of the options, or one such list for each possible column."
        ),
    ] = None
    options: Annotated[Sequence[str] | None, key("Texts of the options.")] = None
    candidates: Annotated[str | None, key("Field that holds each row's own options.")] = None
    drop: Annotated[Sequence[Any], key("Labels whose rows are skipped.")] = ()
    function: Annotated[str | None, key("Function of experiments.config.row_functions that adds fields.")] = (
        None
    )
    metric: Annotated[Literal["accuracy", "f1", "exact_match"], key("Metric on dev and test.")] = "accuracy"
    objective: Annotated[
        Literal["options", "answer", "metric"],
        key("Training objective: cross-entropy over the options or of the answer, or minus the metric."),
    ] = "options"
    average: Annotated[
        Literal["token", "example"], key("What an answer's loss is averaged over within a batch.")
    ] = "token"
    train: Annotated[int, key("Number of training examples.", ge=1, le=LARGE)] = 1000
    dev: Annotated[int, key("Number of dev examples.", ge=0, le=LARGE)] = 500
    test: Annotated[int, key("Number of test examples.", ge=1, le=LARGE)] = 1000
    dev_share: Annotated[
        float, key("Least share of the rows for dev when there are too few for train and dev.", ge=0, le=1)
    ] = 0.4
    test_share: Annotated[
        float | None,
        key(
            "Share of the train split to use as test, the same for every seed; null: use source.test.",
            gt=0,
            lt=1,
        ),
    ] = None
    k: Annotated[
        int | None,
        key(
            "Examples per option for train, and as many for dev; replaces task.train and task.dev.",
            ge=1,
            le=LARGE,
        ),
    ] = None
    scarce: Annotated[
        Literal["refuse", "take"], key("What to do when an option has fewer than 2 k rows.")
    ] = "refuse"
    demonstrations: Annotated[
        int, key("Training examples with answers before each prompt of dev and test.", ge=0, le=LARGE)
    ] = 0
    demonstrations_per: Annotated[
        Literal["run", "example"],
        key("The same demonstrations for the whole run, or new ones for each example."),
    ] = "run"
    calibrate: Annotated[
        Literal["sfc", "icl_sfc"] | None,
        key(
            "Calibrate: subtract the log-probabilities after templates.causal.sfc, alone or after demonstrations."
        ),
    ] = None
    max_length: Annotated[
        int | None, key("Most tokens of a row; null: the model's limit.", ge=2, le=LARGE)
    ] = None
    max_new_tokens: Annotated[int, key("Most tokens of a generated answer.", ge=1, le=LARGE)] = 50

    def __post_init__(self) -> None:
        problems = [*wrong_values(self, "task"), *problems_of(self)]
        check(not problems, "\n".join(problems))

    @property
    def generated(self) -> bool:
        """Returns whether answers are generated instead of chosen."""
        return self.options is None and self.candidates is None


def problems_of(choice: "TaskConfig") -> Iterator[str]:
    """A sentence for each problem."""
    yield from _limits(choice)
    source = choice.source
    if choice.data_dir is None and (source.world is None) == (source.hub is None):
        yield "task.source: exactly one of world and hub is set, unless task.data_dir is."
    if not source.tests:
        yield "task.source.test is an empty list; it names the split that test examples come from."
    yield from _function(choice)
    yield from _shots(choice)
    if choice.generated:
        yield from _answers(choice)
    else:
        yield from _options(choice)


def _limits(choice: "TaskConfig") -> Iterator[str]:
    masked = choice.templates.masked
    for name, limit in ((masked and masked.limits) or {}).items():
        if limit < 1:
            yield f"task.templates.masked.limits.{name}={limit}: at least 1 token."


def _function(choice: "TaskConfig") -> Iterator[str]:
    if choice.function is None:
        return
    if choice.function not in FUNCTIONS:
        yield f"task.function={choice.function}: there is none of that name. Known: {', '.join(FUNCTIONS)}."
        return
    missing = [name for name in FUNCTIONS[choice.function].reads if name not in choice.columns]
    if missing:
        yield f"task.function={choice.function} reads {', '.join(missing)}, which task.columns lacks."


def _shots(choice: "TaskConfig") -> Iterator[str]:
    if choice.k is not None and choice.options is None:
        yield f"task.k={choice.k} draws so many examples of each option, but task.options is null."
    if choice.k is not None and choice.data_dir is None and choice.source.world is not None:
        yield (
            f"task.k={choice.k} is for data of a folder or the hub; the built-in tasks are balanced, "
            f"so set task.train and task.dev."
        )
    if choice.test_share is not None and choice.data_dir is None and choice.source.world is not None:
        yield "task.test_share is for data of a folder or the hub; the built-in tasks have test examples of their own."
    if choice.calibrate is not None and choice.generated:
        yield f"task.calibrate={choice.calibrate} compares options, but answers are generated here."
    if choice.calibrate == "icl_sfc" and choice.demonstrations == 0:
        yield "task.calibrate=icl_sfc stands after demonstrations; set task.demonstrations, or take sfc."


def _answers(choice: "TaskConfig") -> Iterator[str]:
    if choice.metric == "accuracy":
        yield (
            "task.metric=accuracy needs task.options. A generated answer takes f1 or exact_match. (Numbers to predict, "
            "regression, are not supported.)"
        )
    if choice.objective == "options":
        yield "task.objective=options needs task.options. A generated answer takes objective: answer or metric."
    if "answers" not in fields_of(choice):
        yield "task.columns lacks `answers`, the accepted answers of a task without options."


def _options(choice: "TaskConfig") -> Iterator[str]:
    if choice.options is not None and choice.candidates is not None:
        yield f"task.candidates={choice.candidates} and task.options are both set; one of them is null."
    if choice.candidates is not None and choice.candidates not in fields_of(choice):
        yield f"task.candidates={choice.candidates}: the task has {', '.join(sorted(fields_of(choice)))}."
    if choice.metric != "accuracy":
        yield f"task.metric={choice.metric} is for generated answers; with task.options it is accuracy."
    if "label" not in fields_of(choice):
        yield "task.columns lacks `label`, the column with the right option."
    if choice.options is None:
        if choice.labels is not None:
            yield "task.labels orders task.options, which are null."
        return
    if len(choice.options) < 2:
        yield f"task.options has {len(choice.options)} entry; a choice needs at least two."
    empty = [str(number) for number, option in enumerate(choice.options) if not option.strip()]
    if empty:
        yield f"task.options: number {', '.join(empty)} is empty; each is a text that a model can be scored on."
    texts = [option.strip() for option in choice.options]
    for text in dict.fromkeys(texts):
        if text and texts.count(text) > 1:
            yield (
                f"task.options has {text!r} {texts.count(text)} times, and all but the first could never be chosen. "
                f"Each option is another text."
            )
    lists = choice.labels if isinstance(choice.labels, Mapping) else {"": choice.labels}
    for column, labels in lists.items():
        if labels is not None and len(labels) != len(choice.options):
            key = f"task.labels.{column}" if column else "task.labels"
            yield f"{key} has {len(labels)} values for {len(choice.options)} options; they pair up."


def fields_of(choice: "TaskConfig") -> set[str]:
    """Returns the fields that templates may use: columns, and fields that the function adds."""
    added = FUNCTIONS[choice.function].makes if choice.function in FUNCTIONS else ()
    return {*choice.columns, *added}


def read_by(choice: "TaskConfig", family: str) -> set[str]:
    """The names whose text the family's templates read from each example."""
    templates = choice.templates
    if family == "causal" and (causal := templates.causal) is not None:
        target = "option" if choice.options or choice.candidates is not None else "answer"
        texts = [causal.prompt, *(choice.options or ()), *([causal.sfc] if choice.calibrate else [])]
        return (_gaps(causal.answer) - {target}).union(*map(_gaps, texts)) - {"eos"}
    if family == "masked" and templates.masked is not None:
        return _gaps(templates.masked.text) - {"mask"}
    if family == "classifier" and templates.classifier is not None:
        return _gaps(templates.classifier.text) | _gaps(templates.classifier.pair)
    return set()


def _gaps(text: str | None) -> set[str]:
    return Template(text or "", "task.templates").fields
