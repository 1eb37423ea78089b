"""Generates the sentences of the world (reviews, notices, claims, facts) from a random generator.

All are functions of the generator alone; `grammar` says which part of the world may use a sentence.
"""

from collections.abc import Callable
from itertools import product
from random import Random
from typing import NamedTuple

from experiments.world import words

# Reviews --------------------------------------------------------------------------------------------------


def review(rng: Random, positive: bool) -> str:
    """Draws a sentence of one polarity; one frame in eight has a contrary part, one negates a contrary word."""
    matching, opposite = (words.POSITIVE, words.NEGATIVE) if positive else (words.NEGATIVE, words.POSITIVE)
    verb = rng.choice(words.LIKED if positive else words.DISLIKED)
    (first, second), contrary = rng.sample(matching, 2), rng.choice(opposite)
    name, work, part = rng.choice(words.NAMES), rng.choice(words.WORKS), rng.choice(words.PARTS)
    degree, plain = rng.choice(words.DEGREES), rng.choice(words.PLAIN)
    frames = (
        f"The {plain} {work} was {degree} {first} and {second} .",
        f"{name} saw a {first} {work} with a {second} {part} .",
        f"{name} thought the {part} of the {plain} {work} was {degree} {first} .",
        f"{name} {verb} the {plain} {work} and its {first} {part} .",
        f"The {part} of this {plain} {work} is {degree} {first} .",
        f"{name} {verb} this {plain} {work} about a {rng.choice(words.PEOPLE)} .",
        f"The {part} was {contrary} but the {plain} {work} was {degree} {first} .",
        f"{name} thought the {plain} {work} was not {contrary} but {first} .",
    )
    return rng.choice(frames)


def notice(rng: Random) -> str:
    """Draws a neutral sentence about a work."""
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
    """A claim about who has what. quantity: 0 all, 1 none, 2 some."""

    sentence: str
    quantity: int
    subjects: tuple[str, ...]
    rest: str


def premise(rng: Random, quantity: int) -> Premise:
    """Draws a claim that somebody has something: all or always, none or never, some or sometimes."""
    verb, thing = rng.choice(words.HAVING), rng.choice(words.THINGS)
    if rng.randrange(2):
        people, rest = f"{rng.choice(words.PEOPLE)} in {rng.choice(words.CITIES)}", f"a {thing}"
        sentence = f"{rng.choice(words.QUANTIFIERS[quantity])} {people} {verb} {rest} ."
        return Premise(sentence, quantity, (f"The {people}", f"This {people}", f"That {people}"), rest)
    name, rest = rng.choice(words.NAMES), f"a {thing} on {rng.choice(words.DAYS)}"
    sentence = f"{name} {rng.choice(words.FREQUENCIES[quantity])} {verb} {rest} ."
    return Premise(sentence, quantity, (name,), rest)


def hypotheses(given: Premise, lacking: bool) -> list[str]:
    """Returns the hypotheses for a premise: that one of its subjects has the thing, or lacks it."""
    verbs = words.LACKING if lacking else words.HAVING
    return [
        f"{subject} {now}{verb} {given.rest}"
        for subject, now, verb in product(given.subjects, ("", "now ", "also ", "still "), verbs)
    ]


def relation(given: Premise, lacking: bool) -> int:
    """Returns 0 if the hypothesis follows, 1 if it is contradicted, 2 if it stays open."""
    return 2 if given.quantity == 2 else int((given.quantity == 1) != lacking)


# Facts ----------------------------------------------------------------------------------------------------


class Fact(NamedTuple):
    """A context, and a function that lists its questions with the accepted answers, the best first."""

    sentence: str
    questions: Callable[[], list[tuple[str, list[str]]]]


def _details(*phrases: str) -> list[str]:
    """Returns every selection of the phrases, in order, as the end of a question."""
    selections = product((False, True), repeat=len(phrases))
    return [
        "".join(f" {p}" for p, chosen in zip(phrases, choice, strict=True) if chosen) for choice in selections
    ]


def journey(rng: Random) -> Fact:
    """Draws a fact about who went where, how and when."""
    name, city = rng.choice(words.NAMES), rng.choice(words.CITIES)
    vehicle, day = rng.choice(words.TRANSPORT), rng.choice(words.DAYS)
    frames = (
        f"{name} went to {city} by {vehicle} on {day} .",
        f"On {day} {name} travelled to {city} by {vehicle} .",
        f"{name} took the {vehicle} to {city} on {day} .",
    )
    destination, means, date = f"to {city}", f"by {vehicle}", f"on {day}"

    def questions() -> list[tuple[str, list[str]]]:
        return [
            (f"{ask}{rest} ?", answers)
            for verb, past in (("go", "went"), ("travel", "travelled"))
            for ask, rests, answers in (
                (f"Where did {name} {verb}", _details(means, date), [destination, city]),
                (f"Who {past}", _details(destination, means, date)[1:], [name]),
                (f"How did {name} {verb}", _details(destination, date), [means, vehicle]),
                (f"When did {name} {verb}", _details(destination, means), [date, day]),
            )
            for rest in rests
        ]

    return Fact(rng.choice(frames), questions)


def purchase(rng: Random) -> Fact:
    """Draws a fact about who bought what, where and when."""
    name, city = rng.choice(words.NAMES), rng.choice(words.CITIES)
    thing, day = rng.choice(words.THINGS), rng.choice(words.DAYS)
    frames = (
        f"{name} bought a {thing} in {city} on {day} .",
        f"On {day} {name} found a {thing} in {city} .",
        f"In {city} {name} paid for a {thing} on {day} .",
    )
    place, date = f"in {city}", f"on {day}"

    def questions() -> list[tuple[str, list[str]]]:
        return [
            (f"{ask}{rest} ?", answers)
            for verb, past in (("buy", "bought"), ("find", "found"))
            for ask, rests, answers in (
                (f"What did {name} {verb}", _details(place, date), [f"a {thing}", thing]),
                (f"Where did {name} {verb} the {thing}", _details(date), [place, city]),
                (f"Who {past} the {thing}", _details(place, date), [name]),
                (f"When did {name} {verb} the {thing}", _details(place), [date, day]),
            )
            for rest in rests
        ]

    return Fact(rng.choice(frames), questions)
