"""The section `task`: where examples come from and how they are put to a model. Light to import.

The YAML files in conf/task hold these fields and no others; problems_of lists what is wrong before data are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.config.parsing import check, check_literals
from experiments.config.row_functions import FUNCTIONS
from experiments.config.template import Template


@dataclass(frozen=True)
class Source:
    """Where examples come from: a task of the built-in world, or two splits of a data set of the hub.

    test: the split's name, or names that folders give it: the first that is there.
    """

    world: str | None = None
    hub: str | None = None
    subset: str | None = None
    revision: str | None = None
    train: str = "train"
    test: str | Sequence[str] = "validation"

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the split that test examples come from: a folder's first there is, of the hub the first."""
        return (self.test,) if isinstance(self.test, str) else tuple(self.test)


@dataclass(frozen=True)
class Causal:
    """Text before an option or answer, the text that option or answer adds, and the prompt without an input
    that `calibrate` compares with (null: the task cannot be calibrated).
    """

    prompt: str
    answer: str
    sfc: str | None = None


@dataclass(frozen=True)
class Masked:
    """Text with {mask} where the option stands. limits: tokens a field may have; max_length: of the whole."""

    text: str
    limits: Mapping[str, int] | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Classified:
    """A sentence, or a pair of sentences."""

    text: str
    pair: str | None = None


@dataclass(frozen=True)
class Templates:
    """One template a model family; null where the task cannot be put to that family."""

    causal: Causal | None = None
    masked: Masked | None = None
    classifier: Classified | None = None


@dataclass(frozen=True)
class TaskConfig:
    """A task in strings. Without options or candidates, the answer is generated.

    labels: values of the label column in the order of options, or such a list for each column it may be.
    candidates: the field with each row's own options; the label is then a number, a text, or a list of them.
    drop: labels whose rows are left out. function: what makes more fields, see experiments.config.row_functions.
    test_share: this share of the train split's rows, the first of their permutation under 42 whatever the seed, is
    where test examples come from; null: source.test.
    k: so many examples of each option for train and again for dev, instead of `train` and `dev`.
    scarce: what happens when an option has fewer than 2 k rows.
    demonstrations: so many of train stand answered before each prompt of dev and test. demonstrations_per: run, the
    same ones before all of them, or example, others drawn from the train split for each.
    calibrate: the options' log-probabilities less those after templates.causal.sfc, alone or after the
    demonstrations.
    """

    name: str
    columns: Mapping[str, str | Sequence[str]]
    templates: Templates
    source: Source = field(default_factory=Source)
    data_dir: str | None = None
    labels: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None
    options: Sequence[str] | None = None
    candidates: str | None = None
    drop: Sequence[Any] = ()
    function: str | None = None
    metric: Literal["accuracy", "f1", "exact_match"] = "accuracy"
    objective: Literal["options", "answer", "metric"] = "options"
    average: Literal["token", "example"] = "token"
    train: int = 1000
    dev: int = 500
    test: int = 1000
    dev_share: float = 0.4
    test_share: float | None = None
    k: int | None = None
    scarce: Literal["refuse", "take"] = "refuse"
    demonstrations: int = 0
    demonstrations_per: Literal["run", "example"] = "run"
    calibrate: Literal["sfc", "icl_sfc"] | None = None
    max_length: int | None = None
    max_new_tokens: int = 50

    def __post_init__(self) -> None:
        check_literals(self, "task")
        problems = list(problems_of(self))
        check(not problems, "\n".join(problems))

    @property
    def generated(self) -> bool:
        """Whether answers are generated instead of chosen."""
        return self.options is None and self.candidates is None


def problems_of(choice: "TaskConfig") -> Iterator[str]:
    """A sentence for each problem."""
    yield from _numbers(choice)
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


def _numbers(choice: "TaskConfig") -> Iterator[str]:
    counts = {"train": choice.train, "test": choice.test, "max_new_tokens": choice.max_new_tokens}
    counts |= {} if choice.k is None else {"k": choice.k}
    yield from (f"task.{key}={n}: at least 1 is needed." for key, n in counts.items() if n < 1)
    for key, n in {"dev": choice.dev, "demonstrations": choice.demonstrations}.items():
        if n < 0:
            yield f"task.{key}={n}: a number of examples, 0 or more."
    if not 0.0 <= choice.dev_share <= 1.0:
        yield f"task.dev_share={choice.dev_share}: a share between 0 and 1."
    if choice.test_share is not None and not 0.0 < choice.test_share < 1.0:
        yield f"task.test_share={choice.test_share}: a share above 0 and below 1, or null."
    masked = choice.templates.masked
    lengths = {"max_length": choice.max_length}
    if masked is not None:
        lengths["templates.masked.max_length"] = masked.max_length
        for name, limit in (masked.limits or {}).items():
            if limit < 1:
                yield f"task.templates.masked.limits.{name}={limit}: at least 1 token."
    for key, length in lengths.items():
        if length is not None and length < 2:
            yield f"task.{key}={length}: at least 2 tokens, or null."


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
    """The names that templates may hold: of columns, and of what the function makes."""
    made = FUNCTIONS[choice.function].makes if choice.function in FUNCTIONS else ()
    return {*choice.columns, *made}


def read_by(choice: "TaskConfig", family: str) -> set[str]:
    """The names whose text the family's templates read from each example."""
    templates = choice.templates
    if family == "causal" and (causal := templates.causal) is not None:
        said = "option" if choice.options or choice.candidates is not None else "answer"
        texts = [causal.prompt, *(choice.options or ()), *([causal.sfc] if choice.calibrate else [])]
        return (_gaps(causal.answer) - {said}).union(*map(_gaps, texts)) - {"eos"}
    if family == "masked" and templates.masked is not None:
        return _gaps(templates.masked.text) - {"mask"}
    if family == "classifier" and templates.classifier is not None:
        return _gaps(templates.classifier.text) | _gaps(templates.classifier.pair)
    return set()


def _gaps(text: str | None) -> set[str]:
    return Template(text or "", "task.templates").fields
