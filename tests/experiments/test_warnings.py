"""Warnings of a run: its own sentences, once, on stderr, in its files, in the report and in `status`."""

import json
import subprocess
import sys
import warnings

import pytest
import torch

from experiments.__main__ import main
from experiments.display.warned import spoken_warnings
from experiments.report.comparison import comparison
from experiments.report.page import page
from experiments.report.runs import read_runs
from tests.experiments.conftest import ROOT
from zo import FZOO, ZOWarning
from zo.kernels import Native, trial

# Moves that rounding to nearest loses: zo warns of it at the first.
LOST = (
    "model.dtype=bfloat16",
    "update=nearest",
    "optimizer=mezo",
    "optimizer.lr=1e-7",
    "save=false",
    "select=last",
)
SENTENCE = "rounded to nearest, nearly all of it is lost. Use update = 'stochastic' or 'master'."


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.slow  # three runs, one of them in a process of its own
def test_a_run_says_it_once_and_its_files_and_the_report_keep_it(runs, capsys):
    command = [sys.executable, str(ROOT / "launch.py"), *runs.arguments(*LOST)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True)
    (line,) = [line for line in done.stderr.splitlines() if SENTENCE in line]
    assert line.startswith("Warning: A move of about ")
    assert "UserWarning" not in done.stderr and "ZOWarning" not in done.stderr and ".py:" not in done.stderr
    folder = runs.only()
    kept = [line.removeprefix("Warning: ")]
    assert read(folder, "status.json")["warnings"] == read(folder, "result.json")["warnings"] == kept
    runs(*LOST, "seed=1")
    runs("model.dtype=bfloat16", "update=stochastic", *LOST[2:])  # another setting, which warns of nothing
    found = read_runs([runs.folder])
    assert sorted(len(run.warnings) for run in found) == [0, 1, 1]
    lost = [run for run in found if run.warnings]
    (note,) = [note for note in comparison(lost).notes if SENTENCE in note]
    assert note.startswith("mezo on sentiment with tiny-clm (none), 2 of 2 runs: A move of about ")
    pytest.importorskip("jinja2")
    assert "2 of 2 runs: A move of about " in page(comparison(lost))
    capsys.readouterr()
    assert main(["status", str(runs.folder)]) == 0
    assert capsys.readouterr().out.count("1 warning\n") == 2


def test_a_resumed_run_keeps_what_earlier_processes_warned_of_and_a_new_one_does_not(runs, stopped):
    stopped(4, *LOST)
    folder = runs.only()
    status = read(folder, "status.json")
    assert status["state"] == "stopped" and len(status["warnings"]) == 1
    status["warnings"].insert(0, "Said by an earlier process.")
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    result = runs(*LOST)
    assert result["warnings"] == status["warnings"] == read(folder, "status.json")["warnings"]
    assert runs(*LOST, "--rerun")["warnings"] == status["warnings"][1:]


def test_other_packages_come_with_their_name_and_without_a_place(capsys):
    with spoken_warnings() as sentences:
        for _ in range(2):
            exec(compile("import warnings; warnings.warn('two\\n lines', stacklevel=2)", "x.py", "exec"),
                 {"__name__": "peft.tuners.layer"})  # fmt: skip
            exec(compile("import warnings; warnings.warn('old name', FutureWarning)", "y.py", "exec"),
                 {"__name__": "transformers.utils"})  # fmt: skip
        torch.tensor([1.0], requires_grad=True).grad_fn  # noqa: B018
        warnings.warn("no gradient (Triggered internally at /pytorch/a.cpp:12.)", stacklevel=1)
        warnings.warn("Ours.", ZOWarning, stacklevel=1)
    assert sentences == ["peft: two lines.", "torch: no gradient.", "Ours."]
    assert capsys.readouterr().err == "".join(f"Warning: {sentence}\n" for sentence in sentences)


def test_other_ranks_collect_and_are_silent(capsys):
    with spoken_warnings(aloud=False) as sentences:
        warnings.warn("Ours.", ZOWarning, stacklevel=1)
    assert sentences == ["Ours."] and capsys.readouterr().err == ""


def test_a_library_user_gets_pythons_own_warning():
    with pytest.warns(ZOWarning, match="with fewer than 4"):
        FZOO(torch.nn.Linear(2, 2), n=2)


def test_provenance_says_which_kernels_failed_their_trial(runs, monkeypatch):
    if (form := Native()).reason:
        pytest.skip(form.reason)
    monkeypatch.setattr(trial, "_TRIED", {})
    assert read(runs("optimizer=mezo")["folder"], "provenance.json")["left_to_eager"] == []

    def broken(self, *args, **kwargs):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(trial, "_TRIED", {})
    monkeypatch.setattr(Native, "move", broken)
    result = runs("optimizer=mezo", "--rerun")
    provenance = read(result["folder"], "provenance.json")
    (failed, *_) = provenance["left_to_eager"]
    assert (failed["operation"], failed["kernels"], failed["device"]) == ("move", "native", "cpu")
    assert failed["because"] == "it failed (RuntimeError: no such instruction)"
    assert provenance["kernels"] == result["kernels"] == "native (eager: move)"
    assert any(sentence.startswith("move of the native kernels was tried") for sentence in result["warnings"])
