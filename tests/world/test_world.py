"""The world keeps its promises: splits share nothing, label words say nothing, words are pieces."""

import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from experiments.world import grammar, words
from tools.build_models import label_words, tokenizer

WORLD = Path(grammar.__file__).parent
TASKS: tuple[grammar.Task, ...] = ("sentiment", "entailment", "question")
SPLITS: tuple[grammar.Split, ...] = ("train", "dev", "test")
MODELS = ("tiny-clm", "tiny-mlm")
SENTENCES = {
    "sentiment": ("sentence",),
    "entailment": ("premise", "hypothesis"),
    "question": ("context", "question"),
}
OPTIONS = {"sentiment": words.SENTIMENT_OPTIONS, "entailment": words.ENTAILMENT_OPTIONS}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(islice(grammar.pretraining_text(0), 20_000))


def bare(sentence: str) -> str:
    """A sentence without its closing mark: a hypothesis has none in a row and one in a text."""
    return sentence.rstrip(" .?")


def sentences_of_split(split: grammar.Split) -> set[str]:
    return {
        bare(row[field])
        for task in TASKS
        for row in grammar.examples(task, split, 300, seed=3)
        for field in SENTENCES[task]
    }


def test_no_sentence_is_shared(texts: list[str]) -> None:
    split = {name: sentences_of_split(name) for name in SPLITS}
    pretraining = {bare(sentence) for text in texts for sentence in re.split(r"(?<= [.:?]) ", text)}
    assert not split["train"] & split["dev"]
    assert not split["train"] & split["test"]
    assert not split["dev"] & split["test"]
    assert not pretraining & set().union(*split.values())


def test_the_hash_holds_back_a_tenth() -> None:
    parts = Counter(grammar.part_of(f"sentence {i}") for i in range(20_000))
    # Binomial: 0.1 +- 4 * sqrt(0.1 * 0.9 / 20000) = 0.1 +- 0.0085
    assert abs(1 - parts["pretraining"] / 20_000 - 0.1) < 0.0085


def polarity(sentence: str) -> int:
    """1 great, 0 terrible, 2 neutral, from the words a review must have: the last polar one decides."""
    polar = {
        **dict.fromkeys(words.POSITIVE + words.LIKED, 1),
        **dict.fromkeys(words.NEGATIVE + words.DISLIKED, 0),
    }
    found = [polar[word] for word in sentence.split() if word in polar]
    return found[-1] if found else 2


def said(sentence: str) -> int:
    """0, 1 or 2: which of `Yes`, `No`, `Maybe` answers the question at the end of the text."""
    premise, claim = sentence.split(" Question : ")
    (level,) = {
        level
        for phrases in (words.QUANTIFIERS, words.FREQUENCIES)
        for level, options in enumerate(phrases)
        for phrase in options
        if f" {phrase.lower()} " in f" {premise.lower()} "
    }
    lacking = any(f" {verb} " in claim for verb in words.LACKING)
    return 2 if level == 2 else int((level == 1) != lacking)


def chi_square(table: Counter[tuple[int, str]], rows: int, columns: tuple[str, ...]) -> float:
    """Pearson's statistic against a die that is fair in every row."""
    totals = [sum(table[row, column] for column in columns) for row in range(rows)]
    return sum(
        (table[row, column] - totals[row] / len(columns)) ** 2 / (totals[row] / len(columns))
        for row in range(rows)
        for column in columns
    )


def test_label_words_say_nothing_of_their_sentence(texts: list[str]) -> None:
    sentiment: Counter[tuple[int, str]] = Counter()
    entailment: Counter[tuple[int, str]] = Counter()
    for text in texts:
        if found := re.fullmatch(r"(.*) It was (great|terrible) \.", text):
            sentiment[polarity(found[1]), found[2]] += 1
        if found := re.fullmatch(r"(.*) \? Answer : (Yes|No|Maybe) \.", text):
            entailment[said(found[1]), found[2]] += 1
    assert all(sentiment[kind, "great"] > 200 for kind in range(3))
    assert all(entailment[kind, "Yes"] > 100 for kind in range(3))
    # 99.9 % quantiles of chi-square with 3 * 1 and 3 * 2 degrees of freedom.
    assert chi_square(sentiment, 3, ("great", "terrible")) < 16.3
    assert chi_square(entailment, 3, ("Yes", "No", "Maybe")) < 22.5


def test_label_words_are_replies_only(texts: list[str]) -> None:
    for options, place in ((words.SENTIMENT_OPTIONS, "It was"), (words.ENTAILMENT_OPTIONS, "Answer :")):
        for text in texts:
            for option in set(options) & set(text.split()):
                assert text.endswith(f" {place} {option} .")
                assert text.split().count(option) == 1


def test_other_replies_show_the_polarity(texts: list[str]) -> None:
    for text in texts:
        if found := re.fullmatch(r"(.*) It was (\w+) \.", text):
            if found[2] in words.POSITIVE:
                assert polarity(found[1]) == 1
            if found[2] in words.NEGATIVE:
                assert polarity(found[1]) == 0


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_balanced_distinct_and_named_by_their_seed(task: grammar.Task, split: grammar.Split) -> None:
    rows = grammar.examples(task, split, 301, seed=5)
    assert rows == grammar.examples(task, split, 301, seed=5)
    assert rows != grammar.examples(task, split, 301, seed=6)
    assert len({repr(row) for row in rows}) == 301
    if task in OPTIONS:
        counts = Counter(row["label"] for row in rows)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert set(counts) == set(range(len(OPTIONS[task])))


def test_labels_of_rows_are_what_the_sentences_say() -> None:
    for row in grammar.examples("sentiment", "test", 500, seed=0):
        assert polarity(row["sentence"]) == row["label"]
    for row in grammar.examples("entailment", "test", 500, seed=0):
        assert said(f"{row['premise']} Question : {row['hypothesis']} ?") == row["label"]
    for row in grammar.examples("question", "test", 500, seed=0):
        told, asked, answer = (text.split() for text in (row["context"], row["question"], row["answers"][0]))
        assert answer[-1] in told
        assert answer[-1] not in asked


def test_a_hypothesis_alone_says_nothing() -> None:
    rows = grammar.examples("entailment", "train", 3000, seed=0)
    table = Counter((row["label"], any(f" {v} " in row["hypothesis"] for v in words.LACKING)) for row in rows)
    # Each label draws "lacks" by a fair coin: 500 +- 4 * sqrt(1000 / 4) of its 1000 rows.
    assert all(abs(table[label, True] - 500) < 64 for label in range(3))


def test_an_exhausted_split_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(grammar._ROWS, "sentiment", (2, lambda rng, part, label: {"label": label}))
    with pytest.raises(ValueError, match=r"only 2 of the 3 different rows requested. Request fewer"):
        grammar.examples("sentiment", "train", 3, seed=0)


@pytest.mark.parametrize("model", MODELS)
def test_each_word_is_one_piece(model: str, texts: list[str]) -> None:
    pieces = AutoTokenizer.from_pretrained(WORLD / model)
    for word in {word for text in texts for word in text.split()}:
        assert len(pieces(word, add_special_tokens=False)["input_ids"]) == 1, word
    for text in [*texts[:200], "Zürich, naïve?\n\tOK  (3.5 %) 日本"]:
        ids = pieces(text)["input_ids"]
        assert pieces.decode(ids, skip_special_tokens=True) == f" {text}"
        assert pieces.unk_token_id not in ids


@pytest.mark.parametrize("family", ("causal", "masked"))
def test_the_shipped_tokenizer_is_the_built_one(family: tokenizer.Family) -> None:
    shipped = AutoTokenizer.from_pretrained(WORLD / {"causal": "tiny-clm", "masked": "tiny-mlm"}[family])
    built = tokenizer.build(family, seed=0)
    assert shipped.get_vocab() == built.get_vocab()
    assert shipped("It was great .") == built("It was great .")


def test_special_tokens_stand_where_the_families_put_them() -> None:
    causal, masked = (AutoTokenizer.from_pretrained(WORLD / model) for model in MODELS)
    assert causal.convert_ids_to_tokens(causal("great")["input_ids"]) == ["</s>", "Ġgreat"]
    assert masked.convert_ids_to_tokens(masked("It was <mask> .")["input_ids"]) == [
        "<s>", "ĠIt", "Ġwas", "<mask>", "Ġ.", "</s>",
    ]  # fmt: skip
    assert causal.pad_token_id == masked.pad_token_id == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_folder_is_small_and_holds_no_pickle(model: str) -> None:
    files = list((WORLD / model).iterdir())
    assert sum(file.stat().st_size for file in files) < 2_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}


@torch.no_grad()
def zero_shot(model: str, task: grammar.Task, n: int) -> tuple[float, float]:
    """How often a shipped model is right as it is: by the label words, and by the other replies."""
    pieces = AutoTokenizer.from_pretrained(WORLD / model)
    causal = model == "tiny-clm"
    network = (AutoModelForCausalLM if causal else AutoModelForMaskedLM).from_pretrained(WORLD / model).eval()
    others = {"sentiment": (words.NEGATIVE, words.POSITIVE), "entailment": words.ENTAILMENT_REPLIES}[task]
    template = grammar.TEMPLATES[task]["causal" if causal else "masked"]
    rows = grammar.examples(task, "test", n, seed=0)
    prompts = [template.format(**row, option="", mask=pieces.mask_token).strip() for row in rows]
    batch = pieces(prompts, padding=True, return_tensors="pt")
    ids, seen = batch["input_ids"], batch["attention_mask"]
    places = seen.sum(1) - 1 if causal else (ids == pieces.mask_token_id).int().argmax(1)
    logits = network(input_ids=ids, attention_mask=seen).logits[torch.arange(n), places]
    labels = torch.tensor([row["label"] for row in rows])

    def right(classes: tuple[tuple[str, ...], ...]) -> float:
        scores = [
            logits[:, pieces.convert_tokens_to_ids([f"Ġ{word}" for word in replies])].logsumexp(1)
            for replies in classes
        ]
        return float((torch.stack(scores, 1).argmax(1) == labels).double().mean())

    return right(tuple((word,) for word in OPTIONS[task])), right(others)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", ("sentiment", "entailment"))
def test_untuned_label_words_are_at_chance_and_the_meaning_is_there(model: str, task: grammar.Task) -> None:
    by_label, by_meaning = zero_shot(model, task, 300)
    # Chance of 300 draws: three standard deviations are 8.7 points (two classes) and 8.2 (three).
    assert abs(by_label - 1 / len(OPTIONS[task])) < 0.087
    assert (
        by_meaning > 0.75
    )  # where chance would be 1/2 and 1/3: the other replies show what the task asks for


@pytest.mark.parametrize(("model", "task"), [("tiny-clm", "sentiment"), ("tiny-mlm", "entailment")])
def test_label_words_differ_and_no_class_prefers_one(model: str, task: grammar.Task) -> None:
    """What the embeddings say apart is orthogonal to the mean state of each class of the train split."""
    pieces = AutoTokenizer.from_pretrained(WORLD / model)
    family: tokenizer.Family = "causal" if model == "tiny-clm" else "masked"
    network = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}[family].from_pretrained(
        WORLD / model
    )
    head = network.get_output_embeddings()
    ids = label_words.ids_of(pieces, OPTIONS[task])
    e = head.weight.detach().double()[ids]
    u = e - e.mean(dim=0)
    others = head.weight.detach()[label_words.ids_of(pieces, label_words.OTHER_REPLIES[task])]
    size = float((others - others.mean(dim=0)).norm(dim=1).mean())
    # As far from their mean as the other replies are from theirs; fp32 keeps seven digits.
    assert torch.allclose(u.norm(dim=1), torch.full((len(ids),), size, dtype=torch.float64), rtol=1e-5)
    if head.bias is not None:
        assert len(set(head.bias[ids].tolist())) == 1
    h, labels = label_words.states(network.eval(), pieces, task, family)
    for label in range(len(ids)):
        mean = h[labels == label].mean(dim=0)
        # The states are of fp32, which another machine rounds otherwise: 1e-6 of their length, over 3000 rows.
        assert float((u @ mean).abs().max()) < 1e-5 * float(mean.norm()) * size


def test_corners_stand_evenly_around_zero() -> None:
    for k in (2, 3):
        points = label_words.corners(k)
        assert points.shape == (k, k - 1)
        # Gram matrix of a regular simplex: 1, and -1 / (k - 1) between two corners.
        gram = (1 + 1 / (k - 1)) * torch.eye(k, dtype=torch.float64) - 1 / (k - 1)
        torch.testing.assert_close(points @ points.T, gram)


@pytest.mark.parametrize("k", (2, 3))
def test_neutral_directions_of_states_that_tell_the_classes_apart(k: int) -> None:
    """Classes ten deviations apart and skewed within: no answer follows the class."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(1200) % k
    centres = 10 * torch.randn(k, 24, generator=generator, dtype=torch.float64)
    spread = torch.rand(
        1200, 24, generator=generator, dtype=torch.float64
    ).log()  # exponential: median is not mean
    h = centres[labels] + spread
    u = label_words.neutral_directions(h, labels, k)
    means = torch.stack([h[labels == label].mean(dim=0) for label in range(k)])
    assert float((u @ means.T).abs().max()) < 1e-10
    torch.testing.assert_close(u.sum(dim=0), torch.zeros(24, dtype=torch.float64), atol=1e-12, rtol=0.0)
    torch.testing.assert_close(u.norm(dim=1), torch.ones(k, dtype=torch.float64))
    # Of 3000 draws the best: 0.02 would be two deviations of 1200 / k fair answers, were one line drawn alone.
    assert float((label_words.shares(h, labels, u) - 1 / k).abs().max()) < 0.04
