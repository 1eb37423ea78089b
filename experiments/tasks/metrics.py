"""Metrics of answers, baselines, and the interval of a fraction."""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_ANSWER = ("CANNOTANSWER", "no answer")
NORMAL_95 = 1.959963984540054  # the 97.5 % point of the normal distribution


def normalise(answer: str) -> str:
    """Normalises as SQuAD's evaluation does: lower case, no punctuation, no articles, single spaces."""
    kept = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", kept).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1 where the normalised prediction is one of the normalised golds."""
    return float(any(normalise(prediction) == normalise(gold) for gold in golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """The largest F1 of words over the golds; an empty prediction has 0, "no answer" wants itself."""
    return max(_f1(prediction, gold) for gold in golds)


def _f1(prediction: str, gold: str) -> float:
    if gold in NO_ANSWER:
        return float(normalise(prediction) == normalise(gold))
    predicted, wanted = normalise(prediction).split(), normalise(gold).split()
    common = sum((Counter(predicted) & Counter(wanted)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a fraction of n examples.

    For a mean of scores in [0, 1], such as F1, it is wide enough too: their variance is at most p (1 - p).
    """
    z2 = NORMAL_95**2
    middle = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_95 * math.sqrt(fraction * (1 - fraction) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


METRICS = {"exact_match": exact_match, "f1": f1}
