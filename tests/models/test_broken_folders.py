"""A model folder whose files are there and nonsense is one sentence, never a traceback."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.models.loading import load
from zo.errors import ConfigError

TINY = Path(__file__).parents[2] / "experiments" / "world" / "tiny-clm"


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": -1},
        {"hidden_size": "x"},
        {"hidden_size": -8},
        {"num_attention_heads": 0},
        {"architectures": [1]},
        {"architectures": "OPTForCausalLM"},
        {"max_position_embeddings": "many"},
        {"vocab_size": None},
        {"model_type": 3},
        {"activation_function": "none of them"},
    ],
    ids=str,
)
def test_a_config_that_is_nonsense(tmp_path, changes):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(ConfigError, match=str(folder)):
        load({"path": str(folder)})


def test_an_index_that_names_no_file_of_the_folder(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    index = {"metadata": {}, "weight_map": {"model.decoder.embed_tokens.weight": "../../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load({"path": str(folder)})
