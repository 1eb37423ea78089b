"""Where a generated answer ends, and what decides its tokens."""

import json
import shutil
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models

from experiments.models.head import base_of
from experiments.peft import attach
from experiments.tasks.generation import Greedy

from .tiny import WORDS, conf, load, tokenizer

# Single tokens, as in Llama 3's vocabulary; in place of words, so that the tiny models have rows for them.
MERGED = ["ĊĊ", ".Ċ", "ĊĠa"]


def bytes_of_words() -> Any:
    return tokenizer(False, WORDS[: -len(MERGED)], MERGED)


def sentencepiece() -> Any:
    """Llama 2's: spaces are ▁, and characters that have no token are bytes."""
    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *(f"<0x{n:02X}>" for n in range(256)),
        "▁It",
        "▁film",
        "▁",
        "a",
    ]
    made = Tokenizer(
        models.BPE({p: n for n, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def says(model: Any, rows: list[list[int]]) -> list[int]:
    """Makes the model's likeliest tokens those of `rows`; the list has one entry a call."""
    calls: list[int] = []

    def likeliest(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        step = len(calls)
        calls.append(step)
        wanted = torch.tensor([row[step] if step < len(row) else row[-1] for row in rows])
        return torch.nn.functional.one_hot(wanted, logits.shape[-1])[:, None].to(logits.dtype)

    model.lm_head.register_forward_hook(likeliest)
    return calls


@pytest.mark.parametrize(
    ("make", "rows", "texts", "steps"),
    [
        (
            bytes_of_words,
            [["ĠIt", ".Ċ"], ["Ġfilm", "ĊĊ"], ["ĊĠa"], ["ĠIt", "Ġfilm", "Ċ"], ["Ġfilm", "</s>"]],
            ["It.", "film", "", "It film", "film"],
            3,
        ),
        (sentencepiece, [["▁It", "▁", "<0x0A>"], ["▁film", "</s>"], ["<0x0A>"]], ["It", "film", ""], 3),
    ],
)
def test_a_row_ends_at_its_first_newline_whatever_token_has_it(folder, make, rows, texts, steps):
    model: Any = load(conf("model", "hub", path=str(folder("llama")), device="cpu")).model
    spoken = make()
    # What would follow, were the row not at its end.
    calls = says(model, [[*spoken.convert_tokens_to_ids(row), spoken.vocab["a"]] for row in rows])
    ids = torch.full((len(rows), 4), 9)
    said = Greedy(spoken, pad=1, new_tokens=8)(model, ids, torch.ones_like(ids))
    assert said == texts
    assert len(calls) == steps


@pytest.mark.parametrize("peft", ["none", "lora", "prefix", "prompt"])
def test_what_a_model_says_of_generation_changes_no_answer(folder, tmp_path, peft):
    """A generation_config.json beside the weights, which the fingerprint does not know."""
    shutil.copytree(folder("llama"), tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"

    def answers(**changes: Any) -> tuple[list[str], Any]:
        file.write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, **changes}))
        torch.manual_seed(0)
        loaded = attach(
            load(conf("model", "hub", path=str(tmp_path / "model"), device="cpu")), conf("peft", peft)
        )
        ids = torch.arange(40, 60).view(4, 5)
        made = Greedy(loaded.tokenizer, loaded.pad, 8)(loaded.model, ids, torch.ones_like(ids))
        return [text for text in made if text is not None], loaded

    plain, _ = answers()
    first = tokenizer(False).encode(plain[0], add_special_tokens=False)[0]
    changes = {
        "suppress_tokens": [first],
        "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1,
        "min_length": 13,
    }
    made, loaded = answers(**changes)
    assert made == plain
    kept: Any = base_of(loaded.model).generation_config  # what is saved with the model
    assert {name: getattr(kept, name) for name in changes} == changes
