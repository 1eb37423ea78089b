"""The sentences of the world: reviews, notices of works, claims and facts, each drawn from a generator it is given.

All are functions of the generator alone; `grammar` says which part of the world may use a sentence.
"""

from collections.abc import Callable
from itertools import product
from random import Random
from typing import NamedTuple

from experiments.world import words

# Reviews --------------------------------------------------------------------------------------------------


def review(rng: Random, positive: bool) -> str:
    """A sentence of one polarity; in one frame of eight a part differs, in one a word is negated."""
    own, other = (words.POSITIVE, words.NEGATIVE) if positive else (words.NEGATIVE, words.POSITIVE)
    verb = rng.choice(words.LIKED if positive else words.DISLIKED)
    (one, two), contrary = rng.sample(own, 2), rng.choice(other)
    name, work, part = rng.choice(words.NAMES), rng.choice(words.WORKS), rng.choice(words.PARTS)
    degree, plain = rng.choice(words.DEGREES), rng.choice(words.PLAIN)
    frames = (
        f"The {plain} {work} was {degree} {one} and {two} .",
        f"{name} saw a {one} {work} with a {two} {part} .",
        f"{name} thought the {part} of the {plain} {work} was {degree} {one} .",
        f"{name} {verb} the {plain} {work} and its {one} {part} .",
        f"The {part} of this {plain} {work} is {degree} {one} .",
        f"{name} {verb} this {plain} {work} about a {rng.choice(words.PEOPLE)} .",
        f"The {part} was {contrary} but the {plain} {work} was {degree} {one} .",
        f"{name} thought the {plain} {work} was not {contrary} but {one} .",
    )
    return rng.choice(frames)


def notice(rng: Random) -> str:
    """A neutral sentence about a work."""
    name, work, plain = rng.choice(words.NAMES), rng.choice(words.WORKS), rng.choice(words.PLAIN)
    topic, day, city = rng.choice(words.PEOPLE), rng.choice(words.DAYS), rng.choice(words.CITIES)
    frames = (
        f"{name} saw a {plain} {work} about a {topic} on {day} .",
        f"The {plain} {work} about a {topic} was in {city} on {day} .",
        f"{name} thought the {plain} {work} was about a {topic} in {city} .",
    )
    return rng.choice(frames)


# Claims ---------------------------------------------------------------------------------------------------


class Premise(NamedTuple):
    """How much is said (0 all, 1 none, 2 some) of whose having what."""

    sentence: str
    said: int
    subjects: tuple[str, ...]
    rest: str


def premise(rng: Random, said: int) -> Premise:
    """Somebody has something: all of them or always, none or never, some or sometimes."""
    verb, thing = rng.choice(words.HAVING), rng.choice(words.THINGS)
    if rng.randrange(2):
        people, rest = f"{rng.choice(words.PEOPLE)} in {rng.choice(words.CITIES)}", f"a {thing}"
        sentence = f"{rng.choice(words.QUANTIFIERS[said])} {people} {verb} {rest} ."
        return Premise(sentence, said, (f"The {people}", f"This {people}", f"That {people}"), rest)
    name, rest = rng.choice(words.NAMES), f"a {thing} on {rng.choice(words.DAYS)}"
    sentence = f"{name} {rng.choice(words.FREQUENCIES[said])} {verb} {rest} ."
    return Premise(sentence, said, (name,), rest)


def hypotheses(given: Premise, lacking: bool) -> list[str]:
    """What may be asked of a premise: whether one of them has the thing, or lacks it."""
    verbs = words.LACKING if lacking else words.HAVING
    return [
        f"{subject} {now}{verb} {given.rest}"
        for subject, now, verb in product(given.subjects, ("", "now ", "also ", "still "), verbs)
    ]


def relation(given: Premise, lacking: bool) -> int:
    """Whether the hypothesis follows (0), is contradicted (1) or stays open (2)."""
    return 2 if given.said == 2 else int((given.said == 1) != lacking)


# Facts ----------------------------------------------------------------------------------------------------


class Fact(NamedTuple):
    """A context, and a function that lists its questions with the answers that count, the best first."""

    sentence: str
    questions: Callable[[], list[tuple[str, list[str]]]]


def _details(*phrases: str) -> list[str]:
    """Every selection of the phrases, in their order, as an ending of a question."""
    selections = product((False, True), repeat=len(phrases))
    return ["".join(f" {p}" for p, taken in zip(phrases, some, strict=True) if taken) for some in selections]


def journey(rng: Random) -> Fact:
    """Who went where, how and when."""
    name, city = rng.choice(words.NAMES), rng.choice(words.CITIES)
    vehicle, day = rng.choice(words.TRANSPORT), rng.choice(words.DAYS)
    frames = (
        f"{name} went to {city} by {vehicle} on {day} .",
        f"On {day} {name} travelled to {city} by {vehicle} .",
        f"{name} took the {vehicle} to {city} on {day} .",
    )
    to, by, on = f"to {city}", f"by {vehicle}", f"on {day}"

    def questions() -> list[tuple[str, list[str]]]:
        return [
            (f"{ask}{rest} ?", answers)
            for verb, past in (("go", "went"), ("travel", "travelled"))
            for ask, rests, answers in (
                (f"Where did {name} {verb}", _details(by, on), [to, city]),
                (f"Who {past}", _details(to, by, on)[1:], [name]),
                (f"How did {name} {verb}", _details(to, on), [by, vehicle]),
                (f"When did {name} {verb}", _details(to, by), [on, day]),
            )
            for rest in rests
        ]

    return Fact(rng.choice(frames), questions)


def purchase(rng: Random) -> Fact:
    """Who bought what, where and when."""
    name, city = rng.choice(words.NAMES), rng.choice(words.CITIES)
    thing, day = rng.choice(words.THINGS), rng.choice(words.DAYS)
    frames = (
        f"{name} bought a {thing} in {city} on {day} .",
        f"On {day} {name} found a {thing} in {city} .",
        f"In {city} {name} paid for a {thing} on {day} .",
    )
    where, on = f"in {city}", f"on {day}"

    def questions() -> list[tuple[str, list[str]]]:
        return [
            (f"{ask}{rest} ?", answers)
            for verb, past in (("buy", "bought"), ("find", "found"))
            for ask, rests, answers in (
                (f"What did {name} {verb}", _details(where, on), [f"a {thing}", thing]),
                (f"Where did {name} {verb} the {thing}", _details(on), [where, city]),
                (f"Who {past} the {thing}", _details(where, on), [name]),
                (f"When did {name} {verb} the {thing}", _details(where), [on, day]),
            )
            for rest in rests
        ]

    return Fact(rng.choice(frames), questions)
