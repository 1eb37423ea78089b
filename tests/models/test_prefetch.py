"""Models brought to a machine: pickles converted, a hub that answers, refuses, or is not there."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from experiments.config.model_config import ModelConfig
from experiments.models.fetching import convert, converted
from experiments.models.source import locate, prefetch
from zo.errors import ConfigError

from .tiny import conf, load, make, tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def pickled(tmp_path_factory) -> Path:
    """A folder as OPT's repositories are: the weights a pickle in 16 bits, the head tied."""
    folder = tmp_path_factory.mktemp("pickled") / "opt"
    model = make("opt").half()
    model.config.architectures = ["OPTForCausalLM"]
    model.config.save_pretrained(folder)
    tokenizer(False).save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def sharded(pickled: Path, folder: Path) -> Path:
    shutil.copytree(pickled, folder)
    state = torch.load(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    names = sorted(state)
    parts = {"1-of-00002": names[: len(names) // 2], "2-of-00002": names[len(names) // 2 :]}
    for number, part in parts.items():
        torch.save({name: state[name] for name in part}, folder / f"pytorch_model-0000{number}.bin")
    weight_map = {name: f"pytorch_model-0000{number}.bin" for number, part in parts.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("shards", [1, 2])
def test_converted_weights_are_the_pickled_ones_bit_for_bit(pickled, tmp_path, shards):
    source = pickled if shards == 1 else sharded(pickled, tmp_path / "opt")
    folder, done = prefetch(ModelConfig(str(source)), tmp_path / "models")
    assert folder == tmp_path / "models" / "opt" and f"use model.path={folder}" in done
    assert len(list(folder.glob("*.safetensors"))) == shards and not list(folder.glob("*.bin*"))
    state = load(conf("model", "hub", path=str(folder), dtype="float16", device="cpu")).model.state_dict()
    wanted = torch.load(pickled / "pytorch_model.bin")
    assert state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in state)
    assert prefetch(ModelConfig(str(source)), tmp_path / "models")[0] == folder  # again: found, not made
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["opt"]


def test_a_pickle_that_runs_code_does_not(pickled, tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    folder = shutil.copytree(pickled, tmp_path / "opt")
    torch.save({"weight": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin cannot be read as tensors alone"):
        prefetch(ModelConfig(str(folder)), tmp_path / "models")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Harmful()}))
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin cannot be read as tensors alone"):
        prefetch(ModelConfig(str(folder)), tmp_path / "models")
    torch.save({"epoch": 3}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="holds epoch, which is no tensor"):
        prefetch(ModelConfig(str(folder)), tmp_path / "models")
    assert not (tmp_path / "it ran").exists() and not list((tmp_path / "models").iterdir())


def test_a_run_finds_what_was_converted_by_id_and_revision(pickled, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    choice = ModelConfig("facebook/opt-125m", revision="abc")
    convert(pickled, converted("facebook/opt-125m", "abc", tmp_path), "facebook/opt-125m")
    assert locate(choice, tmp_path) == tmp_path / "facebook--opt-125m@abc"
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        locate(ModelConfig("facebook/opt-125m"), tmp_path)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs; `gated/…` is behind a licence, `no/…` is not there."""

    def __init__(self, folder: Path, *rest):
        self.folder = folder
        super().__init__(*rest)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        if "/gated/" in path or "/no/" in path:
            code = {"gated": (403, "GatedRepo"), "no": (404, "RepoNotFound")}[
                "gated" if "/gated/" in path else "no"
            ]
            return self.send(
                code[0], b"{}" if body else b"", {"X-Error-Code": code[1], "X-Error-Message": code[1]}
            )
        files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        if "/tree/" in path:
            rows = [
                {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for n, b in files.items()
            ]
            return self.send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})
        if path.startswith("/api/"):
            told = {
                "id": "facebook/opt-125m",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in files],
            }
            return self.send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        data = files[path.rpartition("/")[2]]
        head = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self.send(200, data if body else b"", {**head, "Content-Length": str(len(data))})

    def send(self, code: int, data: bytes, headers: dict[str, str]):
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(pickled):
    """The address of a hub on this machine that has the pickled model under every id."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, pickled)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def command(tmp_path: Path, endpoint: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """python -m experiments prefetch in a process of its own, since the hub's address is read on import."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy")
    }
    told = environment | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    line = [
        sys.executable,
        "-m",
        "experiments",
        "prefetch",
        f"paths.models={tmp_path / 'models'}",
        *overrides,
    ]
    return subprocess.run(line, env=told, capture_output=True, text=True, timeout=120)


def test_prefetch_downloads_converts_and_the_run_then_needs_no_network(hub, tmp_path, monkeypatch):
    done = command(tmp_path, hub, "model=opt-125m", f"model.revision={COMMIT}", "task=sentiment")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / f"facebook--opt-125m@{COMMIT}"
    assert f"model facebook/opt-125m: converted ({folder})" in done.stdout
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    choice = conf("model", "opt-125m", revision=COMMIT, device="cpu")
    assert load(choice, models=tmp_path / "models").folder == folder


@pytest.mark.slow
def test_what_the_hub_refuses_is_a_sentence(hub, tmp_path):
    licence = command(tmp_path, hub, "model=hub", "model.path=gated/model", "task=sentiment")
    assert licence.returncode == 2
    assert "only to those who accepted its licence" in licence.stderr and "hf auth login" in licence.stderr
    nowhere = command(tmp_path, hub, "model=hub", "model.path=no/model", "task=sentiment")
    assert nowhere.returncode == 2 and "no such model on the hub" in nowhere.stderr


def test_without_a_network_both_model_and_data_are_named(tmp_path):
    done = command(tmp_path, "http://127.0.0.1:9", "model=opt-125m", "task=sst2")  # nobody listens there
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "model.path=facebook/opt-125m" in done.stderr and "stanfordnlp/sst2" in done.stderr
    assert done.stderr.count("127.0.0.1 does not answer") == 2
