"""Virtual tokens do what they are said to: closed forms, places, generation."""

import json
from typing import Any

import pytest
import torch

from experiments.config.peft_config import MODES
from experiments.evaluation.generate import generate
from experiments.peft import attach
from zo.errors import ConfigError

from .tiny import CAUSAL, MASKED, MORE_CAUSAL, VOCABULARY, conf, evaluate, load_task, loaded_of

IDS = torch.randint(5, 200, (3, 11), generator=torch.Generator().manual_seed(2))
MASK = (torch.arange(11) < torch.tensor([[11], [7], [9]])).long()
TOKENS = 5


def drawn(seed: int) -> torch.Tensor:
    """The ids a prefix under that seed is made of, for three rows."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.randint(VOCABULARY, (1, TOKENS)).expand(3, -1)


def logits(model, ids, mask):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


@pytest.mark.parametrize("family", [*CAUSAL, *MORE_CAUSAL])
def test_a_prefix_of_activations_is_its_ids_before_the_text(folder, family):
    """Also where a window slides (Gemma's first block sees 6 tokens back), and past padding."""
    plain = loaded_of(folder, family).model
    model = attach(loaded_of(folder, family), conf("peft", "prefix", tokens=TOKENS), seed=7).model
    wanted = logits(plain, torch.cat([drawn(7), IDS], 1), torch.cat([torch.ones(3, TOKENS).long(), MASK], 1))
    found = logits(model, IDS, MASK)
    there = MASK.bool()
    # The same sums in matrix products of other shapes: fp32 rounding, of logits of size 4.
    torch.testing.assert_close(found[there], wanted[:, TOKENS:][there], rtol=0, atol=1e-5)
    assert (found - logits(plain, IDS, MASK))[there].abs().max() > 1.0


@pytest.mark.parametrize("family", MASKED)
def test_in_an_encoder_it_is_its_ids_as_long_as_they_do_not_see_the_text(folder, family):
    plain = loaded_of(folder, family).model
    model = attach(loaded_of(folder, family), conf("peft", "prefix", tokens=TOKENS), seed=7).model
    seen = (
        torch.cat([torch.ones(3, TOKENS).long(), MASK], 1).bool()[:, None, None].expand(-1, 1, 16, -1).clone()
    )
    seen[:, :, :TOKENS, TOKENS:] = False
    with torch.no_grad():  # RoBERTa gives padding no place of its own, so places of real tokens agree
        wanted = plain(input_ids=torch.cat([drawn(7), IDS], 1), attention_mask=seen).logits[:, TOKENS:]
    there = MASK.bool()
    torch.testing.assert_close(logits(model, IDS, MASK)[there], wanted[there], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", [*CAUSAL, *MORE_CAUSAL, *MASKED])
def test_a_prompt_of_the_vocabulary_is_its_ids_before_the_text(folder, reviews, family):
    """Through the objective, which finds the places that count behind the virtual tokens."""
    loaded: Any = attach(loaded_of(folder, family), conf("peft", "prompt", tokens=TOKENS))
    plain = loaded_of(folder, family).model
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    batch = task.collate(task.train[:4])
    table = plain.get_input_embeddings().weight
    prompt = next(p for p in loaded.model.parameters() if p.requires_grad)
    if family == "gemma3":  # its embedding module scales
        prompt = prompt / plain.config.hidden_size**0.5
    ids = torch.stack([(row - table).abs().sum(1).argmin() for row in prompt])
    with torch.no_grad():
        found = task.objective(loaded.model, batch)
        before = ids.expand(*batch["input_ids"].shape[:-1], -1)
        wanted = task.objective(
            plain,
            {
                **batch,
                "input_ids": torch.cat([before, batch["input_ids"]], -1),
                "attention_mask": torch.cat([torch.ones_like(before), batch["attention_mask"]], -1),
                "positions": batch["positions"] + TOKENS,
            },
        )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["prefix", "prompt"])
def test_pooling_is_over_the_texts_tokens_and_keeps_token_types(folder, mode):
    """A row gives the same logits alone and padded; and the second sentence's types reach the encoder."""
    loaded: Any = attach(loaded_of(folder, "encoder"), conf("peft", mode))
    torch.nn.init.normal_(loaded.model.head.weight, generator=torch.Generator().manual_seed(0))
    types = (torch.arange(11) > 4).long().expand(3, -1)
    with torch.no_grad():
        both = loaded.model(input_ids=IDS, attention_mask=MASK, token_type_ids=types).logits
        alone = loaded.model(
            input_ids=IDS[1:2, :7], attention_mask=MASK[1:2, :7], token_type_ids=types[1:2, :7]
        ).logits
        untyped = loaded.model(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(both[1:2], alone, rtol=0, atol=1e-5)
    assert (both - untyped).abs().max() > 1e-2


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions whose contexts differ in length, so that a batch of them is padded."""
    root = tmp_path_factory.mktemp("questions")
    for split, count in (("train", 6), ("validation", 5)):
        rows = [
            {"context": "a film " * (i % 4 + 1), "question": f"what {i}", "answers": [f"film {i % 3}"]}
            for i in range(count)
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


GENERATED = [(m, "llama") for m in MODES if m != "bitfit"] + [("bitfit", "phi")]
GENERATED += [(m, name) for m in ("prefix", "prompt") for name in (*CAUSAL, *MORE_CAUSAL) if name != "llama"]


@pytest.mark.parametrize("mode, family", GENERATED)
def test_generation_in_padded_batches_is_the_greedy_loop(folder, questions, mode, family):
    loaded: Any = attach(loaded_of(folder, family), conf("peft", mode))
    task = load_task(conf("task", "question", data_dir=str(questions), max_new_tokens=4), loaded)
    together = generate(task, loaded, task.test)
    ends = {loaded.tokenizer.eos_token_id, *loaded.tokenizer.encode("\n", add_special_tokens=False)[-1:]}
    with torch.no_grad():
        for example, said in zip(task.test, together, strict=True):
            ids = list(example.prompt)
            for _ in range(task.max_new_tokens):
                ids.append(int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in ends:
                    break
            new = ids[len(example.prompt) :]
            assert said == loaded.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("family", ["llama", "roberta", "encoder"])
@pytest.mark.parametrize("mode", [m for m in MODES if m not in ("none", "bitfit")])
def test_evaluation_in_batches_says_what_single_examples_say(folder, reviews, mode, family):
    loaded: Any = attach(loaded_of(folder, family), conf("peft", mode))
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    together, alone = (evaluate(task, loaded, task.test, size) for size in (5, 1))
    assert together.predictions == alone.predictions
    assert together.loss == pytest.approx(alone.loss, abs=2e-5)  # fp32 sums in another order
    assert (together.forward_passes, alone.forward_passes) == (3, 12)


def test_virtual_tokens_take_their_places_from_the_text(folder, questions):
    """A text of 123 tokens and 5 virtual ones fill OPT's 128 places."""
    loaded: Any = attach(loaded_of(folder, "opt"), conf("peft", "prefix"))
    assert loaded.context == 123
    ids = torch.randint(5, 200, (1, 123))
    assert logits(loaded.model, ids, torch.ones_like(ids)).shape == (1, 123, VOCABULARY)
    with pytest.raises(ConfigError, match=r"task\.max_new_tokens=122 leaves no room"):
        load_task(conf("task", "question", data_dir=str(questions), max_new_tokens=122), loaded)
