"""The losses of rows add up to the loss that transformers computes for the batch."""

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from tests import tiny
from zo import ConfigError, LookError
from zo.integrations.row_losses import check_losses, objective_of
from zo.look.look import mean, weighted_sums

SMALL = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 20, "num_attention_heads": 2,
}  # fmt: skip


def bert(kind, **options):
    torch.manual_seed(0)
    return kind(BertConfig(**SMALL, **options)).eval()


def masked_labels(batch):
    """Labels of about half the tokens; the last row has none."""
    keep = torch.rand(batch["input_ids"].shape, generator=torch.Generator().manual_seed(1)) < 0.5
    keep[-1] = False
    return torch.where(keep & batch["attention_mask"].bool(), batch["input_ids"], -100)


def tokens_of(family):
    batch = tiny.batch(family, 5, 9)
    return tiny.build(family), batch | {"labels": masked_labels(batch)}


def classifier(labels, **options):
    return bert(BertForSequenceClassification, **options), tiny.batch("bert", 4, 6) | {"labels": labels}


def tagger():
    batch = tiny.batch("bert", 4, 6)
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"] % 3, -100)
    return bert(BertForTokenClassification, num_labels=3), batch | {"labels": labels}


CASES = {
    **{family: lambda family=family: tokens_of(family) for family in ("opt", "llama", "gpt2", "roberta")},
    "lora": lambda: (tiny.build("opt", lora=True), tokens_of("opt")[1]),
    "classes": lambda: classifier(torch.tensor([0, 2, 1, 1]), num_labels=3),
    "numbers": lambda: classifier(torch.tensor([0.5, -1.0, 2.0, 0.0]), num_labels=1),
    "many labels": lambda: classifier(torch.eye(4)[:, :3], num_labels=3),
    "tags": tagger,
}


@pytest.mark.parametrize("case", CASES)
def test_rows_add_up_to_the_models_own_loss(case):
    model, batch = CASES[case]()
    objective = objective_of(model)
    losses, weights = objective(model, batch)
    assert losses.shape == weights.shape == (len(batch["labels"]),)
    ours = mean(*weighted_sums(losses.double().tolist(), weights.double().tolist()))
    with torch.no_grad():
        theirs = model(**batch).loss.item()
    assert ours == pytest.approx(theirs, rel=1e-5)  # sums of fp32 in another order
    check_losses(model, objective, batch)


def test_over_parts_they_add_up_as_transformers_accumulates():
    """transformers divides the summed losses of all micro-batches by the number of all their labels."""
    model, batch = tokens_of("opt")
    count = (batch["labels"][:, 1:] != -100).sum()
    parts = [{name: tensor[rows] for name, tensor in batch.items()} for rows in (slice(0, 2), slice(2, 5))]
    with torch.no_grad():
        theirs = sum(model(**part, num_items_in_batch=count).loss.item() for part in parts)
        pairs = [objective_of(model)(model, part) for part in parts]
    losses, weights = (torch.cat(tensors).double().tolist() for tensors in zip(*pairs, strict=True))
    assert mean(*weighted_sums(losses, weights)) == pytest.approx(theirs, rel=1e-5)


def test_a_loss_of_another_kind_is_refused():
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    with pytest.raises(
        ConfigError, match=r"T5ForConditionalGeneration has a loss of its own kind.*Give the trainer losses="
    ):
        objective_of(model)


class Penalised(nn.Module):
    """A model that adds to its loss what no row has."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config, self.loss_type = model, model.config, model.loss_type

    def forward(self, **batch):
        output = self.inner(**batch)
        if output.loss is not None:
            output.loss = output.loss + 0.1
        return output


def test_a_model_that_adds_to_its_loss_is_found_out():
    model, batch = tokens_of("opt")
    penalised = Penalised(model)
    with pytest.raises(ConfigError, match="adds to its loss, or weighs tokens, in a way of its own"):
        check_losses(penalised, objective_of(penalised), batch)


def test_batches_without_labels_are_refused():
    model, batch = tokens_of("opt")
    del batch["labels"]
    with pytest.raises(
        ConfigError, match=r"The batches have no labels \(they have attention_mask, input_ids\)"
    ):
        objective_of(model)(model, batch)
    with pytest.raises(LookError, match="The logits have shape"):
        objective_of(model)(model, batch | {"labels": torch.zeros(5, 20, dtype=torch.long)})
