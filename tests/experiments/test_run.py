"""A run: what it writes, what it counts, and that it goes on to the same bits."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

import experiments.training.run
from experiments.commands import replay
from experiments.config.compose import compose
from experiments.config.peft_config import MODES
from experiments.config.run_id import hash_of
from experiments.config.saved import load_config
from experiments.launching.states import states
from zo.errors import ConfigError
from zo.journal import Journal

KEYS = """status method model task peft seed config_hash metric before after majority random n_test ci95 steps
forward_passes eval_forward_passes check_forward_passes backward_passes forward_passes_per_step seconds
peak_memory_bytes trainable_parameters model_sha256 last_sha256 draw_sha256 answers_sha256 draw dropout""".split()


def test_result_holds_what_scripts_rely_on(runs):
    result = runs()
    assert [key for key in KEYS if key not in result] == []
    assert result["status"] == "finished" and result["steps"] == 12
    assert result["forward_passes"] == 12 * 9 and result["backward_passes"] == 0
    folder = result["folder"]
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "provenance.json", "status.json", "metrics.jsonl", "journal", "result.json", "answers.json",
        "model",
    }  # fmt: skip
    assert folder.name == "seed0" and folder.parent.name == result["config_hash"][:8]
    assert folder.parent.parent.name == "tiny-clm-sentiment-fzoo-none"
    assert not list(folder.rglob("*.bin")) and list(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("optimizer", ["fzoo", "mezo", "adamw"])
def test_reported_forward_passes_are_those_of_the_model(runs, monkeypatch, optimizer):
    """A hook on the model counts rows; 4 examples are 4 rows, for options have one token; dev and test apart."""
    seen = {"rows": 0, "evaluating": False}
    build, evaluate = experiments.training.run.build, experiments.training.run.evaluate

    def counting_build(config, team):
        session = build(config, team)

        def count(module, args, kwargs):
            if not seen["evaluating"]:
                seen["rows"] += kwargs["input_ids"].shape[0]

        session.loaded.model.register_forward_pre_hook(count, with_kwargs=True)
        return session

    def counting_evaluate(*args, **kwargs):
        seen["evaluating"] = True
        try:
            return evaluate(*args, **kwargs)
        finally:
            seen["evaluating"] = False

    monkeypatch.setattr(experiments.training.run, "build", counting_build)
    monkeypatch.setattr(experiments.training.run, "evaluate", counting_evaluate)
    result = runs(f"optimizer={optimizer}", "budget.steps=6", "batch.micro=2")
    # Comparisons of stacked probes with themselves alone are counted apart, rounded up to whole passes.
    checks = result["check_forward_passes"]
    assert 4 * (checks - 1) < seen["rows"] - 4 * result["forward_passes"] <= 4 * checks


def test_metrics_count_in_forward_passes(runs, rows):
    folder = runs("optimizer=mezo")["folder"]
    dev = [row for row in rows(folder) if row["kind"] == "dev"]
    assert [row["steps"] for row in dev] == [5, 10, 12]
    assert all(row["forward_passes"] == 2 * row["steps"] for row in rows(folder))
    assert next(row["kind"] for row in rows(folder)) == "before"
    assert [row["kind"] for row in rows(folder)][-1] == "after"


def test_same_command_again_runs_nothing_and_rerun_gives_the_same_bits(runs, monkeypatch):
    first = runs()
    stamp = (first["folder"] / "result.json").stat().st_mtime_ns
    assert runs()["model_sha256"] == first["model_sha256"]
    assert (first["folder"] / "result.json").stat().st_mtime_ns == stamp
    again = runs("--rerun")
    assert (first["folder"] / "result.json").stat().st_mtime_ns > stamp
    assert again["model_sha256"] == first["model_sha256"]


def test_seed_changes_the_run_and_not_the_hash(runs):
    one, other = runs("seed=0"), runs("seed=1")
    assert one["config_hash"] == other["config_hash"] and one["folder"].parent == other["folder"].parent
    assert one["model_sha256"] != other["model_sha256"]


def test_stacking_kernels_and_saving_do_not_change_bits_or_hash(runs, tmp_path):
    first = runs()
    for number, other in enumerate(
        (["probes_per_forward=1"], ["kernels=eager"], ["evaluate.batch=8", "save=false"])
    ):
        again = runs(f"paths.runs={tmp_path / str(number)}", *other)
        found = json.loads(next((tmp_path / str(number)).rglob("result.json")).read_text())
        assert found["config_hash"] == first["config_hash"]
        assert found["last_sha256"] == first["last_sha256"], other
        assert again is not None


@pytest.mark.parametrize("optimizer", ["fzoo", "mezo", "adamw"])
def test_stop_file_then_same_command_ends_with_the_bits_of_an_undisturbed_run(
    runs, tmp_path, monkeypatch, optimizer
):
    whole = runs(f"optimizer={optimizer}", f"paths.runs={tmp_path / 'whole'}")
    whole = json.loads(next((tmp_path / "whole").rglob("result.json")).read_text())
    append = Journal.append

    def append_and_ask(self, losses, lr=None):
        append(self, losses, lr)
        if len(self) == 7:
            (self.path.parent / "STOP").touch()

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append_and_ask)
        assert runs(f"optimizer={optimizer}") == {}  # exit code 0, no result yet
    status = json.loads((runs.only() / "status.json").read_text())
    assert (status["state"], status["steps"], status["reason"]) == ("stopped", 7, "STOP file")
    resumed = runs(f"optimizer={optimizer}")
    assert resumed["last_sha256"] == whole["last_sha256"]
    assert resumed["after"] == whole["after"]


def test_best_on_dev_is_rebuilt_not_kept(runs, rows):
    """With a learning rate that ruins the model late, the best step is not the last one."""
    result = runs("select=best", "optimizer.lr=0.5", "schedule=constant")
    dev = [row for row in rows(result["folder"]) if row["kind"] == "dev"]
    best = max(dev, key=lambda row: (row["value"], -row["loss"]))
    assert result["selected_step"] == best["steps"] and result["best_dev"] == best["value"]
    if best["steps"] != 12:
        assert result["model_sha256"] != result["last_sha256"]
    assert replay.replay(result["folder"], best["steps"]) == 0


def test_best_of_a_first_order_run_comes_from_its_snapshot(runs, rows):
    result = runs("optimizer=adamw", "select=best", "optimizer.lr=0.3", "schedule=constant")
    dev = [row for row in rows(result["folder"]) if row["kind"] == "dev"]
    best = max(dev, key=lambda row: (row["value"], -row["loss"]))
    assert result["selected_step"] == best["steps"]


def test_patience_ends_the_run_early(runs):
    result = runs(
        "stop.patience=1", "stop.every=2", "optimizer.lr=0.5", "budget.steps=40", "schedule=constant"
    )
    assert result["steps"] < 40 and result["steps"] % 2 == 0


def test_forward_pass_budget_is_kept(runs):
    assert runs("budget.forward_passes=50")["forward_passes"] == 45
    assert runs("optimizer=adamw", "budget.forward_passes=50")["steps"] == 12  # a step counts 1 + 3


def test_minutes_budget_journals_the_rate_and_replays(runs):
    result = runs("budget.minutes=0.05")
    assert result["steps"] >= 1 and result["status"] == "finished"
    assert replay.replay(result["folder"], None) == 0


def test_diverged_is_a_result(runs, capsys):
    result = runs("optimizer=mezo", "optimizer.lr=1e30", "schedule=constant")
    assert result["status"] == "diverged" and result["steps"] < 12
    status = json.loads((result["folder"] / "status.json").read_text())
    assert status["state"] == "diverged"
    # Why is kept, and shown again by status and by the same command.
    assert status["reason"] == result["reason"] and "loss" in result["reason"]
    assert states([result["folder"]])[0].detail == result["reason"]
    capsys.readouterr()
    runs("optimizer=mezo", "optimizer.lr=1e30", "schedule=constant")
    assert "because" in (shown := capsys.readouterr().out) and result["reason"].split(":")[0] in shown


@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_saved_files_follow_the_umask(runs, mask):
    before = os.umask(mask)
    try:
        folder = runs("budget.steps=1")["folder"]
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o666 & ~mask}, modes


def test_saved_model_loads_and_gives_the_reported_accuracy(runs):
    result = runs("budget.steps=30")
    again = runs(f"model.path={result['folder'] / 'model'}", "budget.steps=1")
    assert again["before"] == result["after"]


def test_export_writes_the_reported_weights(runs, tmp_path):
    result = runs()
    assert replay.export(result["folder"], None, tmp_path / "out") == 0
    saved, exported = (f / "model.safetensors" for f in (result["folder"] / "model", tmp_path / "out"))
    assert saved.read_bytes() == exported.read_bytes()


def test_lora_trains_adapters_only(runs):
    result = runs("peft=lora")
    assert result["trainable_parameters"] < 50_000
    assert (result["folder"] / "model" / "adapter_model.safetensors").exists()


def test_a_record_enters_the_hash_by_content(tmp_path):
    """Not by its path; and no record is none."""

    def named(record):
        composed = compose(["optimizer=mezoswitch", *([f"optimizer.record={record}"] if record else [])])
        assert composed.config is not None
        return hash_of(composed.config, ["model", "data"], 2)

    one, moved, other = tmp_path / "one.json", tmp_path / "moved.json", tmp_path / "other.json"
    one.write_text("[1.0, 2.0]")
    moved.write_text("[1.0, 2.0]")
    other.write_text("[1.0, 2.5]")
    assert named(one) == named(moved)
    assert len({named(one), named(other), named(None)}) == 3


def test_a_run_follows_the_path_of_another(runs, tmp_path, capsys):
    """MeZO-switch on the lengths of AdaMeZO's steps, which its journal gives again without a forward pass."""
    other = runs("optimizer=adamezo", "optimizer.horizon=3")
    path = tmp_path / "lengths.json"
    assert replay.replay(other["folder"], None, path) == 0
    assert "12 steps, a path of length" in capsys.readouterr().out
    lengths = json.loads(path.read_text())
    assert len(lengths) == 12
    result = runs("optimizer=mezoswitch", f"optimizer.record={path}", "optimizer.lr=0.0")
    assert result["steps"] == 12
    assert replay.replay(result["folder"], None) == 0
    followed = tmp_path / "followed.json"
    assert replay.replay(result["folder"], None, followed) == 0
    assert json.loads(followed.read_text()) == pytest.approx(lengths, rel=1e-2)  # small moves of fp32 weights
    adamw = runs("optimizer=adamw")
    with pytest.raises(ConfigError, match="cannot be taken again"):
        replay.replay(adamw["folder"], None, followed)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "none"])
def test_every_mode_moves_a_model_of_16_bits(runs, rows, capsys, mode):
    """At ε = 1e-2. At 1e-3 some steps are idle, and (IA)³ is refused: what its factors scale is rounded to bfloat16,
    whose numbers near 1 are 0.008 apart.
    """
    choices = ["model.dtype=bfloat16", "update=stochastic", f"peft={mode}", "optimizer.lr=1e-2", "save=false"]
    choices += ["budget.steps=3", "select=last"]
    if mode == "ia3":
        runs(*choices, "optimizer.eps=1e-3", code=2)
        assert "ia3_l.default and 8 other tensors" in capsys.readouterr().err
        assert runs.results() == []
    result = runs(*choices, "optimizer.eps=1e-2")
    assert result["idle_steps"] == result["skipped_steps"] == 0
    assert all(row["sigma"] > 0.0 for row in rows(result["folder"]) if row["kind"] == "train")
    assert result["last_sha256"] != result["draw"]["start"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny-clm", "tiny-mlm"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "none"])
def test_every_mode_runs_replays_and_exports(runs, tmp_path, model, mode):
    result = runs(f"model={model}", f"peft={mode}")
    assert (result["peft"], result["sequential_because"]) == (mode, None)
    assert replay.replay(result["folder"], None) == 0
    assert replay.export(result["folder"], None, tmp_path / "out") == 0
    (saved,), (exported,) = (
        folder.glob("*model.safetensors") for folder in (result["folder"] / "model", tmp_path / "out")
    )
    assert saved.read_bytes() == exported.read_bytes()


def test_a_mode_that_cannot_be_is_refused_before_anything_is_written(runs, capsys):
    runs("peft=layers", "peft.blocks=last:9", code=2)
    assert "peft.blocks=last:9\n      the model has" in capsys.readouterr().err
    assert runs.results() == []


def test_16_bit_run_replays(runs):
    result = runs("model.dtype=bfloat16", "update=stochastic")
    assert replay.replay(result["folder"], None) == 0


def _wait_for(path: Path, steps: int, process) -> None:
    """Until the journal below `path` holds that many records (52 bytes each with 9 losses less header)."""
    while process.poll() is None:
        for journal in path.rglob("journal"):
            data = journal.read_bytes()
            header = 13 + 8 + int.from_bytes(data[13:17], "little") if len(data) > 17 else 0
            if header and (len(data) - header) // 44 >= steps:
                return
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_with_signal_9_the_same_command_ends_with_the_same_bits(runs, tmp_path):
    whole = runs("budget.steps=60", f"paths.runs={tmp_path / 'whole'}")
    whole = json.loads(next((tmp_path / "whole").rglob("result.json")).read_text())
    process = runs.start("budget.steps=60")
    _wait_for(runs.folder, 17, process)
    process.kill()
    process.wait()
    assert not list(runs.folder.rglob("result.json"))
    assert runs("budget.steps=60")["last_sha256"] == whole["last_sha256"]


def test_ctrl_c_finishes_the_step_and_exits_130(runs):
    process = runs.start("budget.steps=5000", start_new_session=True)
    _wait_for(runs.folder, 3, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    status = json.loads((runs.only() / "status.json").read_text())
    assert status["state"] == "stopped" and status["steps"] >= 3
    assert "Stopped after" in output


def test_one_thread_or_two_give_runs_that_can_be_replayed(runs):
    """Replaying needs no matrix product, so the number of threads cannot matter to it."""
    result = runs()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert replay.replay(result["folder"], None) == 0
    finally:
        torch.set_num_threads(threads)


def test_a_run_of_another_version_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\nmodel: {path: null}\n")
    with pytest.raises(ConfigError, match=r"has no .*ranks.*model\.device_map.*another version of zo"):
        load_config(tmp_path)
