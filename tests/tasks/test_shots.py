"""Few shots: k of each label to train on, demonstrations in the prompt, and calibration."""

import json

import numpy as np
import pytest
import torch

from experiments.tasks.sampling import k_shot
from zo.errors import ConfigError, DataError

from ..models.tiny import conf, evaluate, load_task

SEEDS = (13, 21, 42, 87, 100)
LABELS = [int(label) for label in np.random.RandomState(0).choice(3, size=300, p=[0.6, 0.3, 0.1])]
NAMES = ("no", "yes", "maybe")


@pytest.fixture
def data(tmp_path):
    for split, count in (("train", 40), ("validation", 30)):
        rows = [{"sentence": f"film {i} {split}", "label": int(i % 4 == 0)} for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path)


def task_of(loaded, data, seed=0, **changes):
    return load_task(conf("task", "sst2", data_dir=data, **changes), loaded, seed)


# k of each label -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_k_shot_is_lm_bffs(seed):
    """Their generator: seed, shuffle the list of rows, then for each label the first k and the next k."""
    rows = list(range(300))
    np.random.seed(seed)
    np.random.shuffle(rows)
    by_label = {}
    for row in rows:
        by_label.setdefault(LABELS[row], []).append(row)
    wanted = [[row for some in by_label.values() for row in some[start : start + 8]] for start in (0, 8)]
    assert list(k_shot(LABELS, NAMES, 8, seed)) == wanted


def test_k_of_each_label_for_train_and_for_dev(mlm, data):
    task = task_of(mlm, data, k=4)
    for split in (task.train, task.dev):
        assert sorted(e.golds[0] for e in split) == [0] * 4 + [1] * 4
    assert not {e.index for e in task.train} & {e.index for e in task.dev}
    assert {e.index for e in task.train} != {e.index for e in task_of(mlm, data, seed=13, k=4).train}


def test_with_the_presets_seed_test_has_lm_bffs_examples(mlm, data):
    """MeZO's masked preset has seeds.test=42, under which LM-BFF cuts test for all of its seeds."""
    np.random.seed(42)
    wanted = np.random.permutation(30)[:20].tolist()
    for seed in SEEDS[:2]:
        task = load_task(conf("task", "sst2", data_dir=data, k=4, test=20), mlm, seed, 42)
        assert [e.index for e in task.test] == wanted


def test_more_shots_than_examples_are_refused(mlm, data):
    with pytest.raises(
        DataError, match=r"task\.k=6 takes 6 .* of great 10\. Lower task\.k, or set task\.scarce=take"
    ):
        task_of(mlm, data, k=6)
    with pytest.raises(DataError, match=r"of terrible 30, great 10\. Lower task\.k\."):
        task_of(mlm, data, k=30, scarce="take")


def test_what_there_is_may_be_taken(mlm, data):
    task = task_of(mlm, data, k=7, scarce="take")
    assert [[e.golds[0] for e in split].count(1) for split in (task.train, task.dev)] == [7, 3]
    labels = [0] * 1250 + [1] * 86  # as TREC with k = 512
    train, dev = k_shot(labels, ("many", "few"), 512, 13, take=True)
    assert (len(train), len(dev)) == (512 + 86, 512)


def test_k_needs_options_in_data(clm):
    with pytest.raises(ConfigError, match=r"task\.k=16 draws so many examples of each option"):
        load_task(conf("task", "squad", data_dir="/nowhere", k=16), clm)
    with pytest.raises(ConfigError, match=r"task\.k=16 is for data of a folder or the hub"):
        load_task(conf("task", "sentiment", k=16), clm)


# Demonstrations ------------------------------------------------------------------------------------------------


def test_demonstrations_stand_before_the_prompts_of_dev_and_test(clm, data):
    templates = {"causal": {"prompt": "{sentence}:", "answer": " {option}"}}
    task = task_of(clm, data, demonstrations=2, train=5, dev=3, templates=templates)
    plain = task_of(clm, data, train=5, dev=3, templates=templates)
    shown = "".join(
        f"{e.fields['sentence']}: {('terrible', 'great')[e.golds[0]]}\n\n" for e in task.train[:2]
    )
    decode = clm.tokenizer.decode
    for one, two in zip(task.dev + task.test, plain.dev + plain.test, strict=True):
        for row, alone in zip(one.rows, two.rows, strict=True):
            assert decode(row.ids) == decode(alone.ids).replace("<s>", "<s>" + shown)
            assert row.span == alone.span
    assert task.train == plain.train


def test_demonstrations_of_generated_answers(clm, tmp_path):
    rows = [{"context": f"a film {n}", "question": "what", "answers": ["film", "x"]} for n in range(6)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(conf("task", "question", data_dir=str(tmp_path), demonstrations=1, dev=0), clm)
    first, example = task.train[0].fields, task.test[0]
    asked = "Question : what Answer :"
    wanted = f"<s>{first['context']} {asked} film</s>\n\n{example.fields['context']} {asked}"
    assert clm.tokenizer.decode(example.prompt) == wanted
    assert clm.tokenizer.decode(example.rows[0].ids) == wanted + " film</s>"


def test_more_demonstrations_than_examples_are_refused(clm, mlm, data):
    with pytest.raises(DataError, match=r"task\.demonstrations=6, but train has 5 examples"):
        task_of(clm, data, demonstrations=6, train=5)
    with pytest.raises(ConfigError, match=r"task\.demonstrations=2 is for causal models"):
        task_of(mlm, data, demonstrations=2)


def shown_before(clm, example):
    """Sentences of the demonstrations before an example's first row."""
    text = clm.tokenizer.decode(example.rows[0].ids, skip_special_tokens=True)
    return [part.split(":")[0] for part in text.split("\n\n")[:-1]]


def test_every_test_example_may_have_demonstrations_of_its_own(clm, data):
    """MeZO's sample_train_sets: seeds below 10,000 under the run's, and under each a permutation of the train split."""
    templates = {"causal": {"prompt": "{sentence}:", "answer": " {option}"}}
    changes = {"demonstrations": 2, "train": 5, "dev": 3, "test": 8, "templates": templates}
    task = task_of(clm, data, demonstrations_per="example", **changes)
    np.random.seed(0)
    seeds = np.random.randint(0, 10000, 8)
    for example, seed in zip(task.test, seeds, strict=True):
        np.random.seed(seed)
        wanted = [f"film {row} train" for row in np.random.permutation(40)[:2]]
        assert shown_before(clm, example) == wanted
    same = task_of(clm, data, **changes)
    assert len({tuple(shown_before(clm, example)) for example in same.test}) == 1
    assert task.train == same.train and task.fingerprint != same.fingerprint
    for example in task_of(clm, data, demonstrations_per="example", **{**changes, "dev": 35}).dev:
        assert example.fields["sentence"] not in shown_before(clm, example)


def test_demonstrations_of_an_example_come_from_the_whole_train_split(clm, data):
    templates = {"causal": {"prompt": "{sentence}:", "answer": " {option}"}}
    changes = {"demonstrations_per": "example", "train": 5, "dev": 0, "test": 3, "templates": templates}
    assert task_of(clm, data, demonstrations=6, **changes).test
    with pytest.raises(DataError, match=r"task\.demonstrations=40, but the train split has 40 examples"):
        task_of(clm, data, demonstrations=40, **changes)


# Calibration ---------------------------------------------------------------------------------------------------


def logprob(loaded, ids, span):
    """Sum of the log-probabilities of a row's last `span` tokens, from the model alone."""
    with torch.no_grad():
        logp = loaded.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logp[place - 1, ids[place]]) for place in range(len(ids) - span, len(ids)))


@pytest.mark.parametrize("objective", ["options", "answer"])
@pytest.mark.parametrize("calibrate", ["sfc", "icl_sfc"])
def test_calibration_subtracts_what_the_options_have_without_an_input(clm, data, calibrate, objective):
    options = ["terrible", "a great film"]
    changes = {"demonstrations": 2, "train": 5, "options": options, "objective": objective}
    task = task_of(clm, data, calibrate=calibrate, **changes)
    decode = clm.tokenizer.decode
    wanted = []
    for example in task.test:
        for row, option in zip(example.blanks, options, strict=True):
            text = decode(row.ids)
            assert text.endswith(f"It was {option}")
            assert (text == f"<s>It was {option}") == (calibrate == "sfc")
            assert text.count("\n\n") == (0 if calibrate == "sfc" else 2)
        scores = [
            logprob(clm, row.ids, row.span) - logprob(clm, blank.ids, blank.span)
            for row, blank in zip(example.rows, example.blanks, strict=True)
        ]
        wanted.append(int(scores[1] > scores[0]))
    made = evaluate(task, clm, task.test, 7)
    assert list(made.predictions) == wanted
    assert (
        made.loss == evaluate(task_of(clm, data, **changes), clm, task.test, 7).loss
    )  # of training, as before


def test_calibration_with_rows_that_differ(clm, tmp_path):
    """COPA's prompt without an input has so or because in it."""
    rows = [
        {
            "premise": "a film.",
            "choice1": "It was great.",
            "choice2": "nobody saw it",
            "question": q,
            "label": 0,
        }
        for q in ("effect", "cause", "effect")
    ]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(conf("task", "copa", data_dir=str(tmp_path), dev=0, calibrate="sfc"), clm)
    wanted = []
    for example in task.test:
        scores = [
            logprob(clm, r.ids, r.span) - logprob(clm, b.ids, b.span)
            for r, b in zip(example.rows, example.blanks, strict=True)
        ]
        wanted.append(int(scores[1] > scores[0]))
    made = evaluate(task, clm, task.test, 3, share=False)
    assert list(made.predictions) == wanted
    assert made.forward_passes == 2
    assert evaluate(task, clm, task.test, 3).predictions == made.predictions


def test_calibration_needs_a_prompt_without_an_input(clm, mlm, data):
    templates = {"causal": {"prompt": "{sentence}", "answer": " {option}"}}
    with pytest.raises(ConfigError, match=r"task\.calibrate=sfc .* task\.templates\.causal\.sfc is null"):
        task_of(clm, data, calibrate="sfc", templates=templates)
    with pytest.raises(ConfigError, match=r"task\.calibrate=sfc is for causal models"):
        task_of(mlm, data, calibrate="sfc")
    with pytest.raises(ConfigError, match="answers are generated"):
        load_task(conf("task", "squad", data_dir=data, calibrate="sfc"), clm)
