"""Prompts letter for letter: MeZO's for causal models, LM-BFF's for masked ones."""

import json

import pytest

from experiments.config.template import Template
from experiments.tasks.prompts import CausalPrompts, MaskedPrompts
from experiments.tasks.records import Record
from zo.errors import ConfigError, DataError

from ..models.tiny import conf, load_task


def write(folder, rows, held_out=None):
    for split, some in (("train", rows), ("validation", held_out or rows)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return str(folder)


def task_of(name, loaded, tmp_path, *rows, **changes):
    return load_task(conf("task", name, data_dir=write(tmp_path, rows * 4), **changes), loaded)


def texts(task, row=0):
    """Prompt and candidates of one row of the data."""
    example = next(e for e in task.train + task.dev if e.index % 4 == row)
    return task.prompts.texts(Record(0, example.fields, (0,), example.answers, ""))


SST2 = {"sentence": "it 's a charming and often affecting journey . ", "label": 1, "idx": 0}
RTE = {
    "premise": "Dana Reeve, 44, has died.",
    "hypothesis": "Christopher Reeve had an accident.",
    "label": 1,
    "idx": 0,
}
CB = {"premise": "B: Not here. A: I don't think  so.", "hypothesis": "it was  so", "label": 2, "idx": 0}


def test_sst2(clm, tmp_path):
    assert texts(task_of("sst2", clm, tmp_path, SST2)) == (
        "it 's a charming and often affecting journey . It was",
        [
            "it 's a charming and often affecting journey . It was terrible",
            "it 's a charming and often affecting journey . It was great",
        ],
    )


@pytest.mark.parametrize("columns", [("premise", "hypothesis"), ("sentence1", "sentence2")])
def test_rte_with_the_columns_of_superglue_and_of_glue(clm, tmp_path, columns):
    row = {columns[0]: RTE["premise"], columns[1]: RTE["hypothesis"], "label": 1}
    prompt = 'Dana Reeve, 44, has died.\nDoes this mean that "Christopher Reeve had an accident." is true? Yes or No?\n'
    assert texts(task_of("rte", clm, tmp_path, row)) == (prompt, [prompt + "Yes", prompt + "No"])


def test_cb(clm, tmp_path):
    prompt = (
        'Suppose B: Not here. A: I don\'t think  so. Can we infer that "it was  so"? Yes, No, or Maybe?\n'
    )
    got = texts(task_of("cb", clm, tmp_path, CB))
    assert got == (prompt, [prompt + "Yes", prompt + "No", prompt + "Maybe"])


def test_sst2_with_a_mask(mlm, tmp_path):
    task = task_of("sst2", mlm, tmp_path, SST2)
    text = task.prompts.string(Record(0, SST2, (1,), (), ""))
    # The space that ends the sentence stays, as LM-BFF has it.
    assert text == "it 's a charming and often affecting journey .  It was<mask>."
    assert mlm.tokenizer.decode(task.train[0].rows[0].ids) == f"<s>{text}</s>"
    assert task.train[0].rows[0].ids[task.train[0].rows[0].span] == mlm.tokenizer.mask_token_id
    assert mlm.tokenizer.convert_ids_to_tokens(task.prompts.words) == ["Ġterrible", "Ġgreat"]


def test_rte_with_a_mask(mlm, tmp_path):
    """The first sentence without its last character, the second beginning with a small letter."""
    text = task_of("rte", mlm, tmp_path, RTE).prompts.string(Record(0, RTE, (1,), (), ""))
    assert text == "Dana Reeve, 44, has died?<mask>, christopher Reeve had an accident."


def test_a_classifier_reads_the_pair(encoder, tmp_path):
    task = task_of("rte", encoder, tmp_path, RTE)
    joined = encoder.tokenizer.decode(task.train[0].rows[0].ids)
    assert joined == f"<s>{RTE['premise']}</s></s>{RTE['hypothesis']}</s>"


@pytest.mark.parametrize("name", ["sentiment", "entailment", "question"])
def test_the_built_in_tasks_have_the_worlds_templates(name):
    from experiments.world.grammar import TEMPLATES

    made, world = conf("task", name)["templates"], TEMPLATES[name]
    assert made["causal"]["prompt"] + made["causal"]["answer"].removesuffix("{eos}") == world["causal"]
    assert (made.get("masked") or {}).get("text") == world.get("masked")


def test_option_words_are_the_worlds():
    from experiments.world import words

    assert conf("task", "sentiment")["options"] == list(words.SENTIMENT_OPTIONS)
    assert conf("task", "entailment")["options"] == list(words.ENTAILMENT_OPTIONS)


# Tokens --------------------------------------------------------------------------------------------------------


def causal(loaded, prompt, answer, *options, limit=128):
    return CausalPrompts(
        loaded.tokenizer,
        Template(prompt, "task.templates.causal.prompt"),
        Template(answer, "task.templates.causal.answer"),
        tuple(Template(option, "task.options") for option in options),
        limit,
    )


def record(**fields):
    return Record(7, fields, (0,), (), "train.jsonl:8")


def test_an_options_tokens_are_the_difference_of_two_tokenisations(clm):
    (example,) = causal(clm, "{s} It was", " {option}", "great", "not it").encode([record(s="a film")])
    tokens = [clm.tokenizer.convert_ids_to_tokens(row.ids[-row.span :]) for row in example.rows]
    assert tokens == [["Ġgreat"], ["Ġ", "n", "o", "t", "Ġ", "i", "t"]]
    assert clm.tokenizer.decode(example.rows[0].ids) == "<s>a film It was great"


def test_white_space_goes_where_mezo_strips_it(clm):
    prompts = causal(clm, "{s} ", "{option} ", "great", "bad")
    assert prompts.texts(record(s="\n  a film")) == ("\n  a film", ["\n  a film great", "\n  a film bad"])
    assert prompts.texts(record(s="  a film\n")) == ("a film\n", ["a film\n great", "a film\n bad"])
    (example,) = prompts.encode([record(s="\n  a film")])
    assert clm.tokenizer.decode(example.rows[0].ids) == "<s>a film great"


def test_what_is_too_long_loses_its_left_but_not_the_first_token(clm):
    prompts = causal(clm, "{s} It was", " {option}", "great", "bad", limit=10)
    (example,) = prompts.encode([record(s="xyz" * 30)])
    assert [len(row.ids) for row in example.rows] == [10, 10]
    assert [clm.tokenizer.decode(row.ids) for row in example.rows] == [
        "<s>xyzxyz It was great",
        "<s>xyz It was bad",
    ]
    assert [row.span for row in example.rows] == [1, 4]


def test_the_mask_survives_truncation(mlm):
    def cut(text, limit, s):
        prompts = MaskedPrompts(mlm.tokenizer, Template(text, "t"), ("great", "terrible"), limit)
        (example,) = prompts.encode([record(s=s)])
        (row,) = example.rows
        assert len(row.ids) == limit
        assert row.ids[row.span] == mlm.tokenizer.mask_token_id
        return mlm.tokenizer.decode(row.ids)

    assert cut("{s}<mask>.", 8, "abcdefghij") == "<s>ghij<mask>.</s>"
    assert cut("<mask>:{s}", 8, "abcdefghij") == "<s><mask>:abcd</s>"


def test_generation_keeps_room_for_the_answer_in_training_too(clm, tmp_path):
    row = {"context": "a film " * 80, "question": "what", "answers": ["a film", "film"]}
    task = task_of("question", clm, tmp_path, row, max_new_tokens=28)
    (example,) = task.train[:1]
    assert len(example.rows[0].ids) == len(example.prompt) == 100
    answered, asked = (clm.tokenizer.decode(ids) for ids in (example.rows[0].ids, example.prompt))
    assert answered.endswith("Question : what Answer : a film</s>")
    assert asked.endswith("Question : what Answer :")
    assert example.answers == ("a film", "film")


# Wrong input ---------------------------------------------------------------------------------------------------


def test_an_option_longer_than_the_context_is_named(clm):
    with pytest.raises(DataError, match=r"train\.jsonl:8: the option has 31 tokens.* a row holds 31.*zzz"):
        causal(clm, "{s}:", "{option}", "z" * 31, "great", limit=31).encode([record(s="a film")])


def test_options_that_cannot_be_scored_are_named(clm):
    with pytest.raises(DataError, match=r"train\.jsonl:8: the option adds no token"):
        causal(clm, "{s}", "{option}", "", "great").encode([record(s="a film")])
    # Before an empty prompt's option stands <s>, to predict from.
    (example,) = causal(clm, "", "{option}", "It", "a").encode([record(s="")])
    assert [row.span for row in example.rows] == [2, 1]


def test_unknown_fields_are_named_with_what_there_is(clm, tmp_path):
    templates = {"causal": {"prompt": "{sentense} It was", "answer": " {option}"}}
    with pytest.raises(ConfigError) as caught:
        task_of("sst2", clm, tmp_path, SST2, templates=templates)
    message = str(caught.value)
    assert "task.templates.causal.prompt names {sentense}" in message
    assert "task.columns" in message
    assert "Did you mean {sentence}?" in message


def test_all_problems_of_the_templates_come_at_once(clm, tmp_path):
    templates = {"causal": {"prompt": "{text} It was", "answer": " {word}"}}
    with pytest.raises(ConfigError) as caught:
        task_of("sst2", clm, tmp_path, SST2, templates=templates)
    for part in ("{text}", "{word}", "must hold {option}"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [("{sentence", "expected '}'"), ("{sentence:shout}", "no filter shout"), ("a}", "Single '}'")],
)
def test_malformed_templates_are_named(text, what):
    with pytest.raises(ConfigError, match=what) as caught:
        Template(text, "task.templates.causal.prompt")
    assert "task.templates.causal.prompt" in str(caught.value)


def test_filters():
    values = {"s": " Some Text. "}
    got = [
        Template(f"{{s:{f}}}", "t").fill(values)
        for f in ("strip", "lower", "strip,chop", "strip,lower_first")
    ]
    assert got == ["Some Text.", " some text. ", "Some Text", "some Text."]
    assert Template("{{s}} {s:strip}", "t").fill(values) == "{s} Some Text."


def test_a_word_of_two_tokens_cannot_stand_at_the_mask(mlm, tmp_path):
    with pytest.raises(ConfigError, match=r"task\.options: awful is no single token"):
        task_of("sst2", mlm, tmp_path, SST2, options=["awful", "great"])


def test_a_text_without_its_one_mask_is_refused(mlm, tmp_path):
    with pytest.raises(DataError, match=r"must give one mask; it is not so in .*/train\.jsonl:\d"):
        task_of("sst2", mlm, tmp_path, SST2, templates={"masked": {"text": "{sentence} It was."}})
    with pytest.raises(DataError, match="no field holds <mask>"):
        task_of("sst2", mlm, tmp_path, {**SST2, "sentence": "a <mask> film"})


def test_a_family_without_template_or_objective_is_refused(clm, mlm, tmp_path):
    with pytest.raises(ConfigError, match=r"no template for a causal model .* it has one for masked"):
        task_of("sst2", clm, tmp_path, SST2, templates={"masked": {"text": "{sentence}{mask}"}})
    with pytest.raises(ConfigError, match=r"task\.objective=answer is for causal models"):
        task_of("sst2", mlm, tmp_path, SST2, objective="answer")


# Options that differ by example ----------------------------------------------------------------------------------


def test_options_may_be_made_of_fields(clm, tmp_path):
    rows = [
        {"premise": "a film so", "one": "it ends", "two": "Yes it goes on", "label": i % 2} for i in range(8)
    ]
    choice = conf("task", "sst2", data_dir=write(tmp_path, rows), options=["{one}", "{two}"])
    choice |= {
        "columns": {"premise": "premise", "one": "one", "two": "two", "label": "label"},
        "templates": {"causal": {"prompt": "{premise}", "answer": " {option}"}},
    }
    task = load_task(choice, clm)
    assert task.train[0].options == ("it ends", "Yes it goes on")
    assert clm.tokenizer.decode(task.train[0].rows[1].ids) == "<s>a film so Yes it goes on"
    assert task.options == ()
    assert task.random_of(task.test) == 0.5
