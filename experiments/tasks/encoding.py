"""A task fitted to a model: its family's templates, checked against the task's fields, its limit, its examples."""

from typing import Any

from experiments.config.task_config import TaskConfig, fields_of
from experiments.config.template import Template
from experiments.models.loading import Loaded
from experiments.tasks.prompts import CausalPrompts, ClassifierPrompts, Example, MaskedPrompts, Prompts
from experiments.tasks.splits import Shown, Splits
from zo.errors import ConfigError, DataError

# Tokens a row may have where nothing says so: MeZO's limit, and room for LM-BFF's pairs of sentences.
CAUSAL_LENGTH, ENCODER_LENGTH = 2048, 256


def limit_of(choice: TaskConfig, loaded: Loaded) -> int:
    """Tokens a row may have. Room for the generated answer is kept free, in training too, as MeZO does."""
    default = CAUSAL_LENGTH if loaded.family == "causal" else ENCODER_LENGTH
    if loaded.family == "masked" and choice.templates.masked is not None:
        default = choice.templates.masked.max_length or default
    limit = min(choice.max_length or default, loaded.context)
    if choice.generated:
        limit -= choice.max_new_tokens
        if limit < 2:
            raise ConfigError(
                f"task.max_new_tokens={choice.max_new_tokens} leaves no room for a prompt in the "
                f"{limit + choice.max_new_tokens} tokens of a row. Lower it."
            )
    return limit


def prompts_of(choice: TaskConfig, loaded: Loaded, limit: int) -> Prompts:
    """The family's prompts. Raises ConfigError that lists every problem of the templates."""
    template = getattr(choice.templates, loaded.family)
    if template is None or (choice.options is None and loaded.family != "causal"):
        families = [f for f in ("causal", "masked", "classifier") if getattr(choice.templates, f) is not None]
        raise ConfigError(
            f"Task {choice.name} has no template for a {loaded.family} model such as {loaded.name}; it has "
            f"one for {', '.join(families)}. Choose another model, or add task.templates.{loaded.family}."
        )
    where = f"task.templates.{loaded.family}"
    options = tuple(Template(text, f"task.options[{i}]") for i, text in enumerate(choice.options or ()))
    if loaded.family == "causal":
        prompts, problems = _causal(choice, loaded, limit, options)
    else:
        text = Template(template.text, f"{where}.text")
        make = _masked if loaded.family == "masked" else _classifier
        prompts, problems = make(choice, loaded, limit, text, template)
        problems += _only_causal(choice, loaded, options)
    if problems:
        raise ConfigError("\n".join(problems))
    if isinstance(prompts, MaskedPrompts):
        # Raises ConfigError for a word that is no single token, before any data are read.
        assert prompts.words
    return prompts


def encode(
    choice: TaskConfig, prompts: Prompts, splits: Splits, shown: Shown | None = None
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]:
    """Returns the encoded examples of each split.

    Demonstrations (the first of train, or `shown`) stand before the prompts of dev and test alone.
    """
    train, dev, test = splits
    if isinstance(prompts, CausalPrompts) and shown is not None:
        of_dev, of_test = ([prompts.demonstrations(some) for some in sets] for sets in shown)
        return (
            tuple(prompts.encode(train)),
            tuple(prompts.encode(dev, of_dev)),
            tuple(prompts.encode(test, of_test)),
        )
    if choice.demonstrations > len(train):
        raise DataError(
            f"task.demonstrations={choice.demonstrations}, but train has {len(train)} examples to show. "
            f"Lower it, or raise task.train."
        )
    if isinstance(prompts, CausalPrompts):
        before = prompts.demonstrations(train[: choice.demonstrations])
        return (
            tuple(prompts.encode(train)),
            tuple(prompts.encode(dev, before)),
            tuple(prompts.encode(test, before)),
        )
    return tuple(prompts.encode(train)), tuple(prompts.encode(dev)), tuple(prompts.encode(test))


def _known(choice: TaskConfig) -> set[str]:
    return fields_of(choice) - {"label", "answers", choice.candidates or ""}


def _causal(
    choice: TaskConfig, loaded: Loaded, limit: int, options: tuple[Template, ...]
) -> tuple[Prompts, list[str]]:
    template, where, known = choice.templates.causal, "task.templates.causal", _known(choice)
    assert template is not None
    prompt = Template(template.prompt, f"{where}.prompt")
    answer = Template(template.answer, f"{where}.answer")
    target = "answer" if choice.generated else "option"
    problems = prompt.check(known | {"eos"}) + answer.check(known | {"eos", target})
    problems += [problem for option in options for problem in option.check(known)]
    if target not in answer.fields:
        problems.append(f"{where}.answer={template.answer!r} must hold {{{target}}}.")
    blank = None
    if choice.calibrate is not None and template.sfc is None:
        problems.append(
            f"task.calibrate={choice.calibrate} compares with the prompt without an input, but {where}.sfc is "
            f"null. Write one, or set task.calibrate=null."
        )
    elif choice.calibrate is not None:
        blank = Template(template.sfc or "", f"{where}.sfc")
        problems += blank.check(known | {"eos"})
    own = choice.candidates is not None
    causal = CausalPrompts(
        loaded.tokenizer, prompt, answer, options, limit, own, blank, choice.calibrate, loaded.first
    )
    return causal, problems


def _masked(
    choice: TaskConfig, loaded: Loaded, limit: int, text: Template, template: Any
) -> tuple[Prompts, list[str]]:
    limits = dict(template.limits or {})
    problems = text.check(_known(choice) | {"mask"})
    problems += [
        f"task.templates.masked.limits.{name}: the template has no such field, but {', '.join(sorted(text.fields))}."
        for name in sorted(set(limits) - text.fields)
    ]
    return MaskedPrompts(loaded.tokenizer, text, tuple(choice.options or ()), limit, limits), problems


def _classifier(
    choice: TaskConfig, loaded: Loaded, limit: int, text: Template, template: Any
) -> tuple[Prompts, list[str]]:
    pair = None if template.pair is None else Template(template.pair, "task.templates.classifier.pair")
    problems = text.check(_known(choice)) + (pair.check(_known(choice)) if pair else [])
    return ClassifierPrompts(loaded.tokenizer, text, pair, tuple(choice.options or ()), limit), problems


def _only_causal(choice: TaskConfig, loaded: Loaded, options: tuple[Template, ...]) -> list[str]:
    """Returns the settings of a task that only a causal model supports."""
    problems = [f"{o.where} holds a field, which only causal models can score." for o in options if o.fields]
    if choice.objective == "answer":
        problems.append(
            f"task.objective=answer is for causal models; a {loaded.family} one takes options or metric."
        )
    if choice.demonstrations:
        problems.append(
            f"task.demonstrations={choice.demonstrations} is for causal models; a {loaded.family} one reads one "
            f"example. Set it to 0."
        )
    if choice.calibrate is not None:
        problems.append(f"task.calibrate={choice.calibrate} is for causal models. Set it to null.")
    return problems
