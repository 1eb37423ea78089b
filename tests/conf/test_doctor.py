"""zo doctor: what it finds is what is here, and a server that does not answer is said soon."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from experiments.__main__ import main
from experiments.commands import doctor


class Refusing(BaseHTTPRequestHandler):
    """Answers everything with 403, as a server does that wants a login."""

    def do_HEAD(self):
        self.send_error(403)

    def log_message(self, *_):
        pass


def test_any_answer_of_a_server_counts():
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert doctor._reached(f"http://127.0.0.1:{server.server_port}", 10.0)["state"] == "reached"


def test_a_silent_server_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        began = time.monotonic()
        found = doctor._reached(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.5)
    assert found["state"].startswith("not reached") and time.monotonic() - began < 30


def test_versions_are_compared_with_what_the_distribution_takes():
    found = doctor.packages()
    assert found["torch"] == {"takes": ">=2.6", "here": torch.__version__, "fits": True, "extra": None}
    assert found["hydra-core"]["extra"] == "experiments" and found["hydra-core"]["fits"]
    assert "pytest" not in found, "what only developers need"


def test_what_is_wrong_is_a_sentence():
    lacking = {"takes": "<6,>=5.2", "here": None, "fits": False, "extra": "experiments"}
    found = {
        "packages": {"transformers": lacking, "peft": lacking | {"here": "0.9", "takes": ">=0.18"}},
        "torch": {"devices": [{"device": "cuda:0", "wrong": ["move of signs in float32: it failed"]}]},
        "compilers": {"g++": None}, "slurm": {"lacking": ["srun"], "submitit": True},
        "disk": {"here": {"path": "/x", "free": 2**30, "writable": True}},
    }  # fmt: skip
    said = list(doctor._problems(found))
    assert said[0].startswith("transformers is not installed: pip install")
    assert said[1:] == [
        "peft 0.9 is here, and zo takes >=0.18.",
        "kernels on cuda:0: move of signs in float32: it failed",
        "There is no C++ compiler, so noise on a CPU is made by torch, which is slower.",
        "disk (here): /x has 1.0 GiB free.",
        "SLURM: srun not found on PATH.",
    ]


def test_a_torch_that_takes_too_long_is_no_wait():
    began = time.monotonic()
    assert "not ready in 0.1 s" in doctor._torch(0.1)["error"]
    assert time.monotonic() - began < 60


def test_a_scheduler_that_does_not_answer_is_no_none():
    row = doctor._slurm_row({"version": None, "partitions": None, "lacking": [], "submitit": True})
    assert row == "version not known; no partition answers"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_this_machine(capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    code = main(["doctor", "--json", "--seconds", "600"])
    found = json.loads(capsys.readouterr().out)
    assert code == int(bool(found["problems"]))
    assert found["torch"]["torch"] == torch.__version__
    cpu = found["torch"]["devices"][0]
    assert (cpu["device"], cpu["wrong"]) == ("cpu", []) and cpu["kernels"] in ("native", "eager")
    assert found["hub"] == {"state": "not asked: HF_HUB_OFFLINE is set"}  # as tests/conftest.py sets it
    assert doctor.text(found).splitlines()[0].startswith("zo ")
