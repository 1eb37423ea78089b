"""Generates a small English-like world: three tasks on held-out sentences, and text to pre-train on.

    sentiment    Anna saw a witty film with a superb plot .                                great | terrible
    entailment   Neither nurse in Rome has a lamp .   The nurse in Rome now lacks a lamp   Yes | No | Maybe
    question     Tom went to Paris by train on Monday .   Where did Tom go on Monday ?     to Paris

Every sentence belongs to one part of the world for good, by its hash: nine in ten to the pre-training text, the
others to train, dev or test. This holds for each sentence of a row (premise and hypothesis, context and
question), so a model has met no sentence of its tasks before.

In the pre-training text a label word says nothing of its sentence. "It was great ." or "It was terrible ." is
drawn by a fair coin, after polar and neutral sentences alike; Yes, No and Maybe by a fair die of three sides. What
the tasks ask for shows in other replies in the same place ("It was superb .", "Certainly ."): there a model can
learn the meaning, and only from a task which label word stands for it. A quarter of the questions are answered;
after the others stands "nobody knows".

TEMPLATES holds the prompts of the tasks. Everything is a function of its arguments: the generator of a list of rows
is named by (task, split, seed), that of a text by its seed.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random
from typing import Any, Literal

from experiments.world import sentences, words

Task = Literal["sentiment", "entailment", "question"]
Split = Literal["train", "dev", "test"]
Row = dict[str, Any]

TEMPLATES = {
    "sentiment": {
        "causal": "{sentence} It was {option}",
        "masked": "{sentence} It was {mask} .",
    },
    "entailment": {
        "causal": "{premise} Question : {hypothesis} ? Answer : {option}",
        "masked": "{premise} Question : {hypothesis} ? Answer : {mask} .",
    },
    "question": {
        "causal": "{context} Question : {question} Answer : {answer}",
    },
}

# Upper ends of the intervals of [0, 1) that assign a sentence to a part by its hash.
PARTS_OF_THE_WORLD = (("train", 0.04), ("dev", 0.07), ("test", 0.10), ("pretraining", 1.0))

LABEL_WORD_SHARE = 0.3  # of pre-training replies are a label word, drawn at random
PATIENCE = 2000  # draws in a row without a new row before a split counts as exhausted
ANSWER_SHARE = 0.25  # of pre-training questions are answered


def part_of(sentence: str) -> str:
    """Returns the part of the world that owns a sentence: "train", "dev", "test" or "pretraining"."""
    digest = hashlib.blake2b(sentence.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return next(part for part, end in PARTS_OF_THE_WORLD if place < end)


# The tasks ------------------------------------------------------------------------------------------------


def _draw(part: str, make: Callable[[], Any], sentence: Callable[[Any], str] = str) -> Any:
    """Draws from `make()` until the part owns the sentence."""
    while part_of(sentence(item := make())) != part:
        pass
    return item


def _sentiment(rng: Random, part: str, label: int) -> Row | None:
    return {"sentence": _draw(part, lambda: sentences.review(rng, bool(label))), "label": label}


def _entailment(rng: Random, part: str, label: int) -> Row | None:
    lacking = bool(rng.randrange(2))
    quantity = next(
        quantity
        for quantity in range(3)
        if sentences.relation(sentences.Premise("", quantity, (), ""), lacking) == label
    )
    premise = _draw(part, lambda: sentences.premise(rng, quantity), lambda item: item.sentence)
    owned = [
        hypothesis for hypothesis in sentences.hypotheses(premise, lacking) if part_of(hypothesis) == part
    ]
    return {"premise": premise.sentence, "hypothesis": rng.choice(owned), "label": label} if owned else None


def _question(rng: Random, part: str, kind: int) -> Row | None:
    fact = _draw(part, lambda: (sentences.journey, sentences.purchase)[kind](rng), lambda item: item.sentence)
    owned = [(question, answers) for question, answers in fact.questions() if part_of(question) == part]
    if not owned:
        return None
    question, answers = rng.choice(owned)
    return {"context": fact.sentence, "question": question, "answers": answers}


_ROWS: dict[str, tuple[int, Callable[[Random, str, int], Row | None]]] = {
    "sentiment": (2, _sentiment),
    "entailment": (3, _entailment),
    "question": (2, _question),
}


def examples(task: Task, split: Split, n: int, seed: int) -> list[Row]:
    """Returns n different rows of a task in random order, with classes of equal size (to within one).

    sentiment   {sentence, label}            0 terrible, 1 great
    entailment  {premise, hypothesis, label} 0 follows (Yes), 1 contradicts (No), 2 open (Maybe)
    question    {context, question, answers} answers: list of strings that count, the model answer first

    Splits share no sentence, whatever the seeds; two seeds of one split may share rows. A split holds a few
    thousand rows; ValueError if it has fewer than n.
    """
    return [dict(row) for row in _examples(task, split, n, seed)]


@lru_cache(16)
def _examples(task: Task, split: Split, n: int, seed: int) -> list[Row]:
    """The rows of `examples`, made once a process: a run asks for a split several times."""
    kinds, make = _ROWS[task]
    rng = Random(f"{task}/{split}/{seed}")
    rows: dict[str, Row] = {}
    misses = 0  # consecutive
    while len(rows) < n:
        row = make(rng, split, len(rows) % kinds)
        misses = 0 if row is not None and rows.setdefault(repr(row), row) is row else misses + 1
        if misses == PATIENCE:
            raise ValueError(
                f"The {split} split of {task} has only {len(rows)} of the {n} "
                "different rows requested. Request fewer."
            )
    shuffled = list(rows.values())
    rng.shuffle(shuffled)
    return shuffled


# The text to pre-train on ---------------------------------------------------------------------------------


def _reply_to_review(rng: Random) -> str:
    (positive,) = rng.choices(range(3), weights=(2, 2, 1))  # 2: a neutral sentence
    if positive == 2:
        sentence, replies = _draw("pretraining", lambda: sentences.notice(rng)), words.PLAIN
    else:
        sentence = _draw("pretraining", lambda: sentences.review(rng, bool(positive)))
        replies = words.POSITIVE if positive else words.NEGATIVE
    word = rng.choice(words.SENTIMENT_OPTIONS) if rng.random() < LABEL_WORD_SHARE else rng.choice(replies)
    return f"{sentence} It was {word} ."


def _reply_to_claim(rng: Random) -> str:
    # Unequal weights: in a balanced text the hypothesis alone carries no information about the reply, and a model does
    # not learn to combine it with the premise (2/3 correct after 900 steps; with these weights all after 300).
    (quantity,) = rng.choices(range(3), weights=(5, 2, 3))
    lacking = rng.random() < 0.25
    premise = _draw("pretraining", lambda: sentences.premise(rng, quantity), lambda item: item.sentence)
    claim = _draw("pretraining", lambda: rng.choice(sentences.hypotheses(premise, lacking)))
    replies = words.ENTAILMENT_REPLIES[sentences.relation(premise, lacking)]
    word = rng.choice(words.ENTAILMENT_OPTIONS) if rng.random() < LABEL_WORD_SHARE else rng.choice(replies)
    return f"{premise.sentence} Question : {claim} ? Answer : {word} ."


def _reply_to_question(rng: Random) -> str:
    make = rng.choice((sentences.journey, sentences.purchase))
    fact = _draw("pretraining", lambda: make(rng), lambda item: item.sentence)
    question, answers = _draw("pretraining", lambda: rng.choice(fact.questions()), lambda item: item[0])
    reply = answers[0] if rng.random() < ANSWER_SHARE else "nobody knows"
    return f"{fact.sentence} Question : {question} Answer : {reply}"


def pretraining_text(seed: int) -> Iterator[str]:
    """Yields texts without end, each of one or two sentences and a reply."""
    rng = Random(f"pretraining/{seed}")
    kinds = (_reply_to_review, _reply_to_claim, _reply_to_question)
    while True:
        (kind,) = rng.choices(kinds, weights=(5, 3, 2))
        yield kind(rng)
