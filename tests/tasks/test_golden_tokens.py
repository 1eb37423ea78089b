"""Token ids written out, from a byte-level BPE with merges that cross the borders of templates.

RoBERTa's and OPT's tokenizers are of this kind: a byte-level pre-tokenizer, then merges. The vocabulary is a list, so
that an id is a place in it; the merges are those that the texts below need, and one, `.` with `?`, that only a text
joined from two pieces has.
"""

import dataclasses

import pytest
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from experiments.config.template import Template
from experiments.tasks.prompts import CausalPrompts, MaskedPrompts
from experiments.tasks.records import Record

from ..models.tiny import conf, load_task

MERGES = (
    "h i",
    "hi p",
    "Ġ I",
    "ĠI t",
    "Ġ w",
    "Ġw a",
    "Ġwa s",
    "Ġ g",
    "Ġg o",
    "Ġ b",
    "Ġb a",
    ". ?",
    "n o",
    "y e",
)
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = list("abghinopstwyeIJN.?,:Ġ")
VOCABULARY = {
    token: place for place, token in enumerate([*SPECIAL, *LETTERS, *(m.replace(" ", "") for m in MERGES)])
}


def bpe(masked: bool) -> hf.PreTrainedTokenizerFast:
    """`<s> text </s>` as RoBERTa's, or `</s> text` as OPT's."""
    made = Tokenizer(
        models.BPE(VOCABULARY, [(one, two) for one, _, two in (m.partition(" ") for m in MERGES)])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        [AddedToken(t, special=True, lstrip=t == "<mask>", normalized=False) for t in SPECIAL]
    )
    single = "<s> $A </s>" if masked else "</s> $A"
    made.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>" if masked else "</s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>", mask_token="<mask>", model_max_length=128,
    )  # fmt: skip


def ids(tokens: str) -> tuple[int, ...]:
    return tuple(VOCABULARY[token] for token in tokens.split(" "))


def masked(name: str, **fields: str) -> tuple[int, ...]:
    """The row of a shipped task's masked template."""
    template = conf("task", name)["templates"]["masked"]
    prompts = MaskedPrompts(
        bpe(True), Template(template["text"], "t"), ("go", "ba"), 64, template.get("limits") or {}
    )
    (example,) = prompts.encode([Record(0, fields, (0,), (), "")])
    (row,) = example.rows
    assert row.ids[row.span] == VOCABULARY["<mask>"]
    return row.ids


@pytest.mark.parametrize("name", ["sst2", "sst5"])
def test_a_sentence_that_ends_in_a_space_keeps_it_as_a_token(name):
    """SST-2's sentences do, in all 872 rows of the test files of MeZO's k-shot data."""
    field = {"sst2": "sentence", "sst5": "text"}[name]
    assert masked(name, **{field: "hip "}) == ids("<s> hip Ġ ĠIt Ġwas <mask> . </s>")
    assert masked(name, **{field: "hip "}) == (0, 27, 25, 29, 32, 4, 21, 2)
    assert masked(name, **{field: "hip"}) == ids("<s> hip ĠIt Ġwas <mask> . </s>")


@pytest.mark.parametrize("name", ["mnli", "snli", "rte"])
def test_no_token_spans_a_field_and_the_text_behind_it(name):
    """The premise loses its last character; its full stop before that and the question mark stay two tokens."""
    expected = ids("<s> hip . ? <mask> , Ġ i t </s>")
    assert masked(name, premise="hip.!", hypothesis="It") == expected
    assert expected == (0, 27, 21, 22, 4, 23, 25, 9, 14, 2)
    joined = bpe(True)("hip.?<mask>, it")["input_ids"]
    assert VOCABULARY[".?"] in joined, "the fixture has the merge that would cross the border"


def test_the_space_between_literal_text_and_a_field_is_the_fields():
    assert masked("trec", text="wh") == ids("<s> <mask> : Ġw h </s>")


def test_a_limit_counts_the_tokens_of_the_field_as_encoded():
    text = Template("{mask}: {text}", "t")
    prompts = MaskedPrompts(bpe(True), text, ("go", "ba"), 64, {"text": 2})
    (example,) = prompts.encode([Record(0, {"text": "was hip"}, (0,), (), "")])
    assert example.rows[0].ids == ids("<s> <mask> : Ġwas Ġ </s>")


def causal(
    first: int | None, *options: str, prompt: str = "{s} It was", answer: str = " {option}", limit: int = 64
):
    made = CausalPrompts(
        bpe(False), Template(prompt, "p"), Template(answer, "a"), tuple(Template(o, "o") for o in options), limit,
        first=first,
    )  # fmt: skip
    (example,) = made.encode([Record(0, {"s": "hip"}, (0,), (), "train.jsonl:1")])
    return example


def test_the_first_token_of_opts_rows_is_the_tokenizers_or_the_one_chosen():
    """MeZO's code sets tokenizer.bos_token_id = 0; OPT's own is </s>, 2."""
    assert [row.ids for row in causal(None, "go", "ba").rows] == [
        (2, 27, 29, 32, 34), (2, 27, 29, 32, 36)
    ]  # fmt: skip
    assert [row.ids for row in causal(0, "go", "ba").rows] == [(0, 27, 29, 32, 34), (0, 27, 29, 32, 36)]
    assert [row.span for row in causal(0, "go", "ba").rows] == [1, 1]


def test_the_first_token_stays_where_a_row_is_cut():
    assert [row.ids for row in causal(0, "go", "ba", limit=3).rows] == [(0, 32, 34), (0, 32, 36)]


def test_a_task_gets_the_first_token_that_the_model_was_loaded_with(clm, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"sentence": "hip", "label": 1}\n' * 8, encoding="utf-8")
    (tmp_path / "validation.jsonl").write_text('{"sentence": "hip", "label": 1}\n', encoding="utf-8")
    loaded = dataclasses.replace(clm, first=4)
    for model, start in ((clm, 0), (loaded, 4)):
        task = load_task(conf("task", "sst2", data_dir=str(tmp_path), options=["great", "It"]), model)
        assert {row.ids[0] for example in task.test for row in example.rows} == {start}
