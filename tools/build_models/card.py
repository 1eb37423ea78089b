"""Writes the card of each shipped model."""

from transformers import PreTrainedModel

_KINDS = {"clm": "causal", "mlm": "masked"}


def text(name: str, model: PreTrainedModel, steps: int, loss: float) -> str:
    """Returns a short README in the form of a Hugging Face model card."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kind = _KINDS[name]
    auto = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}[kind]
    return f"""---
license: mit
language: en
---

# tiny-{name}

A {kind} language model ({type(model).__name__}, {parameters:,} parameters) of a world of some 270 words, made
to try out fine-tuning on a CPU in a minute. It knows no other text. Trained for {steps:,} steps of 32 texts by
`python -m tools.build_models.build --only {name}`; mean loss of the last 100 steps {loss:.3f}.

Load it with `{auto}.from_pretrained(folder)`. The folder above says what the world is and what was measured.
"""
