"""What is scored, for tokenizers of every kind: no closing token, no token that all options share, no option twice."""

import json
import shutil
import warnings
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from experiments.commands.launch import main
from experiments.config.template import Template
from experiments.tasks.prompts import CausalPrompts, MaskedPrompts
from experiments.tasks.records import Record
from experiments.tasks.scored_tokens import Encoder, scored
from zo.errors import ConfigError, DataError

from ..models.tiny import _COMMON, conf, evaluate, load, load_task, tokenizer

WORLD = "experiments/world/tiny-clm"


def write(folder, rows, name="train"):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def ended(tmp_path):
    """The shipped decoder with a tokenizer that appends its end token, as LlamaTokenizer(add_eos_token=True) does."""
    folder = shutil.copytree(WORLD, tmp_path / "eos")
    made = hf.AutoTokenizer.from_pretrained(folder)
    end = made.eos_token
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A {end}", pair=f"{end} $A {end} $B", special_tokens=[(end, made.eos_token_id)]
    )
    made.save_pretrained(folder)
    assert hf.AutoTokenizer.from_pretrained(folder)("a")["input_ids"][-1] == made.eos_token_id
    return folder


@pytest.mark.parametrize("name", ["sentiment", "question"])
def test_an_end_token_that_the_tokenizer_appends_is_left_out(ended, name):
    """Rows, prompts to generate from and calibration are those of the tokenizer without it."""
    tasks = [
        load_task(
            conf("task", name, train=8, dev=4, test=8),
            load(conf("model", "hub", path=str(path), device="cpu")),
        )
        for path in (WORLD, ended)
    ]
    assert tasks[0].train == tasks[1].train and tasks[0].test == tasks[1].test


def test_a_run_with_an_appended_end_token_is_the_run_without_it(ended, tmp_path):
    """The shipped tokenizer has 48.0 % before training; with the end token scored as the option it was 67.0."""
    values = []
    for number, path in enumerate((WORLD, ended)):
        runs = tmp_path / f"runs{number}"
        base = ("model=hub", f"model.path={path}", "model.device=cpu", "task=sentiment", "optimizer=none")
        assert main([*base, "task.test=200", "task.dev=0", "task.train=8", f"paths.runs={runs}"]) == 0
        (result,) = runs.rglob("result.json")
        values.append(json.loads(result.read_text(encoding="utf-8"))["after"])
    assert values[0] == values[1]


def spanning(*options: str) -> CausalPrompts:
    """A BPE that merges the prompt's colon with the first letter behind it."""
    vocabulary = {t: n for n, t in enumerate(["x", ":", "p", "n", "o", ":p", ":n"])}
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [(":", "p"), (":", "n")]))
    )
    templates = tuple(Template(option, str(number)) for number, option in enumerate(options))
    return CausalPrompts(made, Template("x:", "prompt"), Template("{option}", "answer"), templates, 64)


def test_a_token_that_spans_prompt_and_option_is_scored():
    prompts = spanning("po", "no")
    (example,) = prompts.encode([Record(0, {}, (0,), (), "row")])
    tokens = [prompts.tokenizer.convert_ids_to_tokens(list(row.ids[-row.span :])) for row in example.rows]
    assert tokens == [[":p", "o"], [":n", "o"]]


def test_what_is_scored_begins_where_prompt_and_whole_differ():
    assert scored((1, 2, 3), (1, 2, 3, 4)) == 1
    assert scored((1, 2, 3), (1, 2, 5, 6)) == 2
    assert scored((1, 2, 3), (1, 2, 3)) == 0
    assert scored((), (7,)) == 1


def test_options_that_are_the_same_tokens_are_refused():
    """Neither is in the vocabulary, so that both are the unknown token."""
    made = Tokenizer(models.WordLevel({"<unk>": 0, "x": 1, "yes": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    unknown = hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    options = tuple(Template(text, text) for text in ("yes", "maybe", "perhaps"))
    prompts = CausalPrompts(unknown, Template("x", "prompt"), Template(" {option}", "answer"), options, 64)
    with pytest.raises(
        DataError, match=r"row: the options 'maybe' and 'perhaps' are the same tokens .*<unk>"
    ):
        prompts.encode([Record(0, {}, (0,), (), "row")])


def test_masked_options_that_are_one_token_are_refused():
    """Of a vocabulary without capitals."""
    made = Tokenizer(models.WordLevel({"<unk>": 0, "[MASK]": 1, "yes": 2, "a": 3, "?": 4}, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    small = hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", mask_token="[MASK]")
    with pytest.raises(ConfigError, match=r"task\.options: yes, Yes are the same token of this model"):
        assert MaskedPrompts(small, Template("{s}{mask}", "t"), ("yes", "Yes"), 64).words


def test_equal_options_of_a_task_are_refused(clm, tmp_path):
    with pytest.raises(ConfigError, match=r"task\.options has 'great' 2 times, and all but the first"):
        load_task(conf("task", "sst2", data_dir=str(tmp_path), options=["great", "great"]), clm)


def test_equal_candidates_of_a_row_are_one(clm, tmp_path):
    """The label names the second "wood", which is the first one's text; guessing is right in 1 of 2."""
    rows = [{"question": "What burns?", "choices": ["wood", "wood ", "sand"], "right": 1}] * 8
    write(tmp_path, rows)
    write(tmp_path, rows[:2], "validation")
    choice = conf("task", "sst2", data_dir=str(tmp_path), options=None, candidates="choices") | {
        "columns": {"question": "question", "choices": "choices", "label": "right"},
        "templates": {"causal": {"prompt": "{question}", "answer": " {option}"}},
    }
    task = load_task(choice, clm)
    for example in task.test:
        assert (example.options, example.golds, example.merged) == (("wood", "sand"), (0,), 1)
        assert len(example.rows) == 2
    assert task.random_of(task.test) == 0.5
    assert evaluate(task, clm, task.test).predictions[0] in (0, 1)


def test_a_pad_token_outside_the_embeddings_is_not_taken(tmp_path):
    """Any id will do, as padding is masked out: the run is that of the tokenizer without one."""
    folder = shutil.copytree(WORLD, tmp_path / "pad")
    made = hf.AutoTokenizer.from_pretrained(folder)
    made.add_special_tokens({"pad_token": "[PAD]"})
    made.save_pretrained(folder)
    loaded = load(conf("model", "hub", path=str(folder), device="cpu"))
    vocabulary = loaded.model.get_input_embeddings().num_embeddings
    assert loaded.tokenizer.pad_token_id == vocabulary > loaded.pad
    plain = load(conf("model", "hub", path=WORLD, device="cpu"))
    values = [
        evaluate(load_task(conf("task", "sentiment", train=8, test=16), model), model, examples)
        for model in (plain, loaded)
        for examples in [load_task(conf("task", "sentiment", train=8, test=16), model).test]
    ]
    assert values[0].loss == values[1].loss


def test_ids_without_embeddings_are_named(clm, tmp_path):
    folder = shutil.copytree(WORLD, tmp_path / "more")
    made = hf.AutoTokenizer.from_pretrained(folder)
    made.add_tokens(["film"])
    made.save_pretrained(folder)
    write(tmp_path, [{"sentence": "a film", "label": 1}] * 8)
    write(tmp_path, [{"sentence": "a film", "label": 1}], "validation")
    loaded = load(conf("model", "hub", path=str(folder), device="cpu"))
    with pytest.raises(DataError, match=r"token 'film' has the id \d+, but the model has embeddings for \d+"):
        load_task(conf("task", "sst2", data_dir=str(tmp_path)), loaded)


def test_the_frame_of_a_tokenizer(clm, mlm):
    assert Encoder(clm.tokenizer).frame == ((0,), ())
    assert Encoder(mlm.tokenizer).frame == ((0,), (2,))
    assert not Encoder(mlm.tokenizer).spaced
    assert Encoder(hf.AutoTokenizer.from_pretrained("experiments/world/tiny-mlm")).spaced


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A RoBERTa that is a decoder: its positions count from its padding id."""
    folder = tmp_path_factory.mktemp("decoder")
    common: dict[str, Any] = {**_COMMON}
    config = hf.RobertaConfig(
        **common, intermediate_size=64, initializer_range=0.5, max_position_embeddings=130, type_vocab_size=1,
        is_decoder=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf.RobertaForCausalLM(config).save_pretrained(folder)
    tokenizer(masked=False).save_pretrained(folder)
    return load(conf("model", "hub", path=str(folder), device="cpu"))


def test_robertas_positions_are_its_own_where_keys_are_kept_and_in_generation(decoder, tmp_path):
    from experiments.tasks.batches import padded
    from experiments.tasks.generation import Greedy

    texts = ["a film It was", "the nobody Question and a film the great terrible"]
    rows = [tuple(decoder.tokenizer(text)["input_ids"]) for text in texts]
    ids, mask = padded(rows, decoder.pad, 128, left=True)
    said = Greedy(decoder.tokenizer, decoder.pad, 5)(decoder.model, ids, mask)
    for row, text in zip(rows, said, strict=True):
        current = list(row)
        for _ in range(5):
            with torch.no_grad():
                current.append(int(decoder.model(input_ids=torch.tensor([current])).logits[0, -1].argmax()))
        assert text == decoder.tokenizer.decode(current[len(row) :], skip_special_tokens=True).strip()
    write(tmp_path, [{"sentence": f"{text} {n}", "label": 1} for n, text in enumerate(texts * 4)])
    write(tmp_path, [{"sentence": text, "label": 1} for text in texts], "validation")
    choice = conf("task", "sst2", data_dir=str(tmp_path), options=["great film", "terrible nobody"])
    task = load_task(choice, decoder)
    together, whole = (evaluate(task, decoder, task.test, share=share) for share in (True, False))
    assert together.loss == pytest.approx(whole.loss, abs=2e-5)  # fp32 sums in another order


def test_an_encoder_is_no_decoder(mlm):
    with pytest.raises(
        ConfigError, match=r"model\.family=causal: .* is an encoder .* Set model\.family=masked"
    ):
        load(conf("model", "hub", path=str(mlm.folder), family="causal", device="cpu"))


def test_nothing_is_warned_of_for_plain_text(clm, tmp_path):
    write(tmp_path, [{"sentence": f"a film {n}", "label": n % 2} for n in range(8)])
    write(tmp_path, [{"sentence": "the film", "label": 1}], "validation")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_task(conf("task", "sst2", data_dir=str(tmp_path), train=5, dev=3, test=1), clm)
