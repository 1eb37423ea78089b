"""Checkpoints that cannot be trained as they are: a sentence that says what works."""

import pytest
import transformers as hf

from experiments.models.placing import check_checkpoint
from zo.errors import ConfigError

from .tiny import _COMMON, load, tokenizer


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_other_quantised_checkpoints_are_refused(method):
    with pytest.raises(ConfigError, match=f"{method}.*Take the unquantised checkpoint"):
        check_checkpoint({"quantization_config": {"quant_method": method}}, "m", "lora")


def test_a_checkpoint_of_bitsandbytes_takes_adapters():
    with pytest.raises(ConfigError, match="peft=lora, peft=ia3, peft=prefix, peft=prompt"):
        check_checkpoint({"quantization_config": {"quant_method": "bitsandbytes"}}, "m", "none")
    check_checkpoint({}, "m", "none")


def test_an_architecture_without_sdpa_is_one_sentence_of_ours(tmp_path):
    hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=_COMMON["vocab_size"], hidden_size=32, n_head=4, n_layer=2)
    ).save_pretrained(tmp_path)
    tokenizer(False).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has no sdpa\. Set model\.attention=eager") as error:
        load({"path": str(tmp_path), "device": "cpu"})
    assert "whisper" not in str(error.value)
    load({"path": str(tmp_path), "device": "cpu", "attention": "eager"})
