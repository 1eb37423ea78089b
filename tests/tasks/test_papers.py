"""Every task of the papers on given rows: prompts letter for letter, candidates, labels, metric."""

import json

import pytest

from experiments.config.parsing import read
from experiments.config.task_config import Masked, TaskConfig, read_by
from experiments.tasks.encoding import prompts_of
from experiments.tasks.records import Record
from zo.errors import ConfigError, DataError

from ..models.tiny import CONF, conf, load_task

PASSAGE = "Anna met Bob in Oslo.\n@highlight\nBob waited\n@highlight\nAnna was late"

# Task: a row, the prompt that ends before the options, what each option adds, the numbers of the right ones,
# and the prompt without an input. As princeton-nlp/MeZO's large_models/templates.py builds them.
CAUSAL = {
    "boolq": (
        {"passage": "Snow is cold.", "question": "is snow cold", "answer": True},
        "Snow is cold. Is snow cold?\n",
        ["Yes", "No"],
        (0,),
        "",
    ),
    "wsc": (
        {
            "text": "The cat saw him.",
            "span1_text": "The cat",
            "span2_text": "Him",
            "span1_index": 0,
            "span2_index": 3,
            "label": 0,
        },
        'The cat saw him.\nIn the previous sentence, does the pronoun "him" refer to The cat? Yes or No?\n',
        ["No", "Yes"],
        (0,),
        "",
    ),
    "wic": (
        {
            "word": "place",
            "sentence1": "Do you want to come?",
            "sentence2": "A political system.",
            "label": 1,
        },
        'Does the word "place" have the same meaning in these two sentences? Yes, No?\n'
        "Do you want to come?\nA political system.\n",
        ["No", "Yes"],
        (1,),
        "",
    ),
    "multirc": (
        {"paragraph": "Tom ran home.", "question": "Who ran?", "answer": "Tom", "label": 1},
        'Tom ran home.\nQuestion: Who ran?\nI found this answer "Tom". Is that correct? Yes or No?\n',
        ["No", "Yes"],
        (1,),
        "",
    ),
    "copa": (
        {
            "premise": "The man turned on the faucet. ",
            "choice1": "The toilet filled.",
            "choice2": "I got wet.",
            "question": "effect",
            "label": 1,
        },
        "The man turned on the faucet so",
        [" the toilet filled.", " I got wet."],
        (1,),
        "so",
    ),
    "record": (
        {
            "passage": PASSAGE,
            "query": "Bob saw @placeholder; @placeholder smiled",
            "entities": ["Anna", "Bob", "Oslo", "Anne"],
            "answers": ["Anne", "Anna"],
        },
        "Anna met Bob in Oslo.\n- Bob waited\n- Anna was late\n-",
        [f" Bob saw {name}; {name} smiled" for name in ("Anna", "Bob", "Oslo", "Anne")],
        (3, 0),
        "-",
    ),
    "snli": (
        {"premise": "A man runs.", "hypothesis": "He moves.", "label": 2},
        'Suppose A man runs. Can we infer that "He moves."? Yes, No, or Maybe?\n',
        ["Yes", "Maybe", "No"],
        (2,),
        "",
    ),
    "sst5": (
        {"text": "a film ", "label": 3},
        "a film It was",
        [" terrible", " bad", " okay", " good", " great"],
        (3,),
        "It was",
    ),
    "trec": (
        {"text": "Who ?", "coarse_label": 0, "fine_label": 1},
        "Question: Who ?\nType:",
        [" Description", " Entity", " Expression", " Human", " Location", " Number"],
        (2,),
        "Type:",
    ),
    "sst2": ({"sentence": "a film ", "label": 1}, "a film It was", [" terrible", " great"], (1,), "It was"),
}
CAUSAL["mnli"] = CAUSAL["snli"]
NLI = {"premise": "A man runs.", "hypothesis": "He moves."}

# As LM-BFF's templates give for a RoBERTa tokenizer, with the label words in the order of our options.
MASKED = {
    "sst2": ({"sentence": "a film ", "label": 1}, "a film  It was<mask>.", ["terrible", "great"], 1),
    "sst5": (
        {"text": "a film", "label": 4},
        "a film It was<mask>.",
        ["terrible", "bad", "okay", "good", "great"],
        4,
    ),
    "rte": ({**NLI, "label": 1}, "A man runs?<mask>, he moves.", ["Yes", "No"], 1),
    "snli": ({**NLI, "label": 1}, "A man runs?<mask>, he moves.", ["Yes", "Maybe", "No"], 1),
    "mnli": ({**NLI, "label": 2}, "A man runs?<mask>, he moves.", ["Yes", "Maybe", "No"], 2),
    "trec": (
        {"text": "Who ?", "coarse_label": 5},
        "<mask>: Who ?",
        ["Description", "Entity", "Expression", "Human", "Location", "Number"],
        5,
    ),
}


def write(folder, *rows):
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def task_of(name, loaded, folder, *rows, **changes):
    return load_task(conf("task", name, data_dir=write(folder, *rows * 6), dev=0, **changes), loaded)


def record_of(example):
    return Record(0, example.fields, example.golds, example.answers, "", example.options)


@pytest.mark.parametrize("name", list(CAUSAL))
def test_causal_prompts(clm, tmp_path, name):
    row, prompt, options, golds, blank = CAUSAL[name]
    task = task_of(name, clm, tmp_path, row, max_length=128, calibrate="sfc")
    example = task.test[0]
    assert task.prompts.texts(record_of(example)) == (prompt, [prompt + option for option in options])
    without = [(blank + option).strip(" ") for option in options]
    assert task.prompts.texts(record_of(example), blank=True) == (blank, without)
    assert example.golds == golds
    assert len(example.rows) == len(example.options) == len(example.blanks) == len(options)
    assert task.metric == "accuracy"
    assert [task.correct(example, n) for n in range(len(options))] == [
        n in golds for n in range(len(options))
    ]
    assert task.random_of(task.test) == pytest.approx(len(golds) / len(options))
    assert clm.tokenizer.decode(example.blanks[0].ids) == "<s>" + without[0]
    for row in (example.rows[0], example.blanks[0]):
        assert clm.tokenizer.decode(row.ids[-row.span :]).strip() == options[0].strip()


@pytest.mark.parametrize("name", list(MASKED))
def test_masked_prompts(worded, tmp_path, name):
    row, text, words, gold = MASKED[name]
    task = task_of(name, worded, tmp_path, row)
    example = task.test[0]
    assert task.prompts.string(record_of(example)) == text
    assert worded.tokenizer.decode(example.rows[0].ids) == f"<s>{text}</s>"
    assert worded.tokenizer.convert_ids_to_tokens(task.prompts.words) == [f"Ġ{word}" for word in words]
    assert task.collate([example])["words"].shape == (1, len(words))
    assert example.golds == (gold,)


GENERATED = {
    "squad": (
        {
            "id": "1",
            "title": "Oslo",
            "context": "Oslo is old.",
            "question": " How old? ",
            "answers": {"text": ["very old", "old"], "answer_start": [8, 8]},
        },
        "Title: Oslo\nContext: Oslo is old.\nQuestion: How old?\nAnswer:",
        " very old\n",
        ("very old", "old"),
    ),
    "drop": (
        {
            "passage": "He ran 3 miles.",
            "question": "How far?",
            "answers_spans": {"spans": ["3", "3 miles"], "types": ["number", "span"]},
        },
        "Passage: He ran 3 miles.\nQuestion: How far?\nAnswer:",
        " 3\n",
        ("3", "3 miles"),
    ),
}


@pytest.mark.parametrize("name", list(GENERATED))
def test_generated_answers(clm, tmp_path, name):
    row, prompt, answer, golds = GENERATED[name]
    task = task_of(name, clm, tmp_path, row, max_new_tokens=8)
    example = task.test[0]
    assert task.prompts.texts(record_of(example)) == (prompt, [prompt + answer])
    assert clm.tokenizer.decode(example.prompt) == "<s>" + prompt
    assert clm.tokenizer.decode(example.rows[0].ids) == "<s>" + prompt + answer
    assert (
        clm.tokenizer.decode(example.rows[0].ids[-example.rows[0].span :]) == answer
    )  # the first is trained on
    assert example.answers == golds
    assert (task.metric, task.generated) == ("f1", True)
    assert [task.correct(example, gold) for gold in golds] == [1.0, 1.0]
    assert 0.0 < task.correct(example, golds[1] + " x") < 1.0


OPTION_TASKS = [
    path.stem
    for path in sorted((CONF / "task").glob("*.yaml"))
    if conf("task", path.stem).get("options") is not None
]


@pytest.mark.parametrize("name", [name for name in OPTION_TASKS if name != "copa"])
def test_every_task_with_fixed_options_has_a_template_for_classifiers(encoder, name):
    choice = read(TaskConfig, conf("task", name), "task")
    prompts = prompts_of(choice, encoder, 128)
    fields = dict.fromkeys(read_by(choice, "classifier"), "Some text.")
    (example,) = prompts.encode([Record(0, fields, (0,), (), "")])
    assert "Some text." in encoder.tokenizer.decode(example.rows[0].ids)


@pytest.mark.parametrize("name", list(CAUSAL))
def test_mezos_way_to_train(name):
    """COPA and ReCoRD over the answer's tokens, as the published scripts, the others over the options."""
    assert conf("task", name)["objective"] == ("answer" if name in ("copa", "record") else "options")


# Labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("label_coarse_original", ["DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"]),
        ("coarse_label", [2, 1, 0, 3, 4, 5]),
        ("label", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_trecs_labels_by_the_column_they_are_in(clm, tmp_path, column, values):
    rows = [{"text": f"what {n}", column: value} for n, value in enumerate(values)]
    task = task_of("trec", clm, tmp_path, *rows)
    assert {e.fields["text"]: e.golds for e in task.test} == {f"what {n}": (n,) for n in range(6)}


def test_a_label_column_without_a_list_is_named(clm, tmp_path):
    columns = {"text": "text", "label": "kind"}
    with pytest.raises(DataError, match="label is in kind"):
        task_of("trec", clm, tmp_path, {"text": "a", "kind": 1}, columns=columns)


@pytest.mark.parametrize(
    ("column", "value", "gold"),
    [("answer", True, 0), ("answer", False, 1), ("label", 1, 0), ("label", 0, 1)],
)
def test_boolq_with_a_bool_or_a_number(clm, tmp_path, column, value, gold):
    task = task_of("boolq", clm, tmp_path, {"passage": "a", "question": "B?", column: value})
    assert {e.golds for e in task.test} == {(gold,)}
    assert task.test[0].options == ("Yes", "No")
    assert task.prompts.texts(record_of(task.test[0]))[0] == "a B?\n"


@pytest.mark.parametrize("name", ["snli", "mnli"])
def test_rows_without_a_gold_label_are_left_out(clm, tmp_path, name):
    rows = [{**NLI, "label": label} for label in (0, -1, 1, 2)]
    task = task_of(name, clm, tmp_path, *rows)
    assert len(task.test) == 18
    assert {e.index % 4 for e in task.test} == {0, 2, 3}
    with pytest.raises(DataError, match="leaves no row"):
        task_of(name, clm, tmp_path, {**NLI, "label": -1})


# Lengths -------------------------------------------------------------------------------------------------------


def test_lm_bffs_limit_of_the_first_sentence(worded, tmp_path):
    assert {name: conf("task", name)["templates"]["masked"].get("limits") for name in MASKED} == {
        "sst2": None,
        "sst5": {"text": 110},
        "rte": {"premise": 240},
        "snli": None,
        "mnli": {"premise": 240},
        "trec": {"text": 110},
    }
    templates = {"masked": {"text": "{premise:chop}?{mask}, {hypothesis}", "limits": {"premise": 4}}}
    task = task_of(
        "rte", worded, tmp_path, {"premise": "abcdefgh.", "hypothesis": "xy", "label": 0}, templates=templates
    )
    assert task.prompts.string(record_of(task.test[0])) == "abcd?<mask>, xy"  # a letter is a token here


@pytest.mark.parametrize(
    ("name", "length"), [("sst2", 128), ("sst5", 128), ("trec", 128), ("rte", 256), ("mnli", 256)]
)
def test_lm_bffs_whole_lengths(name, length):
    assert read(Masked, conf("task", name)["templates"]["masked"], "masked").max_length == length


def test_what_is_too_long_loses_its_end_while_the_mask_stays(worded, tmp_path):
    row = {"premise": "ab.", "hypothesis": "xyzxyz", "label": 0}
    task = task_of("rte", worded, tmp_path, row, max_length=9)
    assert worded.tokenizer.decode(task.test[0].rows[0].ids) == "<s>ab?<mask>, x</s>"


# Wrong input ---------------------------------------------------------------------------------------------------


def test_rows_of_copa_and_record_that_cannot_be_are_named(clm, tmp_path):
    copa, record = CAUSAL["copa"][0], CAUSAL["record"][0]
    with pytest.raises(DataError, match=r"train\.jsonl:1: question is 'why', but must be effect or cause"):
        task_of("copa", clm, tmp_path, {**copa, "question": "why"})
    for changes, said in (
        ({"entities": []}, "lines is empty; a row needs options to choose from"),
        ({"entities": ["Anna", 3]}, "entities is .*must be a list of texts"),
        ({"query": "nobody"}, "has no @placeholder"),
        ({"answers": ["Eve"]}, "none of answers .*Eve.* is among entities"),
        ({"passage": None}, "passage is None, but must be text"),
    ):
        with pytest.raises(DataError, match=rf"train\.jsonl:1: .*{said}"):
            task_of("record", clm, tmp_path, {**record, **changes})


def test_columns_that_a_function_reads_are_needed(clm, tmp_path):
    with pytest.raises(
        ConfigError, match=r"task\.function=copa reads choice2, question, which task\.columns lacks"
    ):
        columns = {"premise": "premise", "choice1": "choice1", "label": "label"}
        task_of("copa", clm, tmp_path, {}, columns=columns)
    with pytest.raises(DataError, match=r"lacks question \(looked for question\)"):
        row = {k: v for k, v in CAUSAL["copa"][0].items() if k != "question"}
        task_of("copa", clm, tmp_path, row)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"function": "kopa"}, "task.function=kopa: there is none of that name. Known: copa, record"),
        ({"options": ["great", " "]}, "task.options: number 1 is empty"),
        ({"candidates": "sentence"}, "task.candidates=sentence and task.options are both set"),
        ({"candidates": "all", "options": None}, "task.candidates=all: the task has label, sentence"),
        ({"candidates": "sentence", "options": None, "labels": [0, 1]}, "task.labels orders task.options"),
        ({"labels": {"label": [0], "other": [1, 0]}}, "task.labels.label has 1 values for 2 options"),
        ({"k": 0}, "task.k=0"),
        ({"demonstrations": -1}, "task.demonstrations=-1"),
        ({"calibrate": "icl_sfc"}, "set task.demonstrations"),
        ({"calibrate": "pmi"}, "It takes sfc or icl_sfc, or null"),
    ],
)
def test_a_task_that_cannot_be_is_refused(clm, changes, said):
    with pytest.raises(ConfigError) as caught:
        load_task(conf("task", "sst2", data_dir="/nowhere", **changes), clm)
    assert said in str(caught.value)


def test_masked_limits_are_of_fields_that_there_are(worded):
    masked = {"text": "{sentence}{mask}", "limits": {"sentense": 3}}
    with pytest.raises(
        ConfigError, match=r"limits\.sentense: the template has no such field, but mask, sentence"
    ):
        load_task(conf("task", "sst2", data_dir="/nowhere", templates={"masked": masked}), worded)
    masked = {"text": "{sentence}{mask}", "limits": {"sentence": 0}}
    with pytest.raises(ConfigError, match=r"limits\.sentence=0: at least 1 token"):
        load_task(conf("task", "sst2", data_dir="/nowhere", templates={"masked": masked}), worded)
