"""The dashboard's definition, built without a login."""

import json
import shutil
from collections import Counter
from itertools import product

import pytest
import yaml

pytest.importorskip(
    "wandb_workspaces", reason="wandb-workspaces is not installed (pip install zo-finetune[dashboards])"
)

from experiments.__main__ import main
from experiments.config.compose import compose
from experiments.report.colours import STYLES


def panels(tree):
    """Every panel of a definition: its title, axis, metrics and how runs are put together."""
    if isinstance(tree, dict):
        if "viewType" in tree:
            config = tree["config"]
            yield config["chartTitle"], config.get("xAxis"), config["metrics"], config
        for value in tree.values():
            yield from panels(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from panels(value)


WANTED = {
    ("forward_passes", "eval/dev_score"), ("forward_passes", "eval/dev_loss"), ("seconds", "eval/dev_score"),
    ("forward_passes", "train/loss"), ("forward_passes", "train/sigma"), ("forward_passes", "train/projected_gradient"),
    (None, "result/after"), (None, "result/peak_memory_bytes"), (None, "result/seconds"),
    (None, "result/forward_passes"),
}  # fmt: skip


def built(folder, tmp_path, *more):
    out = tmp_path / "dashboard.json"
    assert (
        main(["dashboard", str(folder), "--project", "mine", "--entity", "me", "--out", str(out), *more]) == 0
    )
    return json.loads(out.read_text(encoding="utf-8"))


def filters(runset):
    """What a runset's filter says: key and the values that it lets through."""
    found = runset["filters"]["filters"]
    assert {each["op"] for each in found} == {"IN"} and all(
        each.get("connector", "AND") == "AND" for each in found
    )
    return {f"{each['key']['section']}:{each['key']['name']}": each["value"] for each in found}


def grids(report):
    """The runset and the panels of each panel grid of a report."""
    for block in report["spec"]["blocks"]:
        if block["type"] == "panel-grid":
            (runset,) = block["metadata"]["runSets"]
            yield runset, list(panels(block["metadata"]))


def test_the_definition_compares_methods_over_seeds(ended, tmp_path):
    made = built(ended, tmp_path)
    (workspace,), report = made["workspaces"], made["report"]
    assert (workspace["project"], workspace["entity"], report["project"]["name"]) == ("mine", "me", "mine")
    for definition in (workspace, report):
        found = list(panels(definition))
        assert {(x, metrics[0]) for _, x, metrics, _ in found} == WANTED
        for _, _, _, config in found:
            assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == (
                "run.value.method", "mean", "stddev"
            )  # fmt: skip
    name = f"tiny-clm-sentiment-fzoo-none-{ended.parent.name}-seed0"
    (runs,) = workspace["spec"]["section"]["runSets"]
    assert filters(runs) == {
        "config:run.value.model": ["tiny-clm"],
        "config:task.value.name": ["sentiment"],
        "config:peft.value.name": ["none"],
        "run:name": [name],
    }
    assert runs["grouping"] == [{"section": "config", "name": "run.value.method"}]
    text = next(block["content"] for block in report["spec"]["blocks"] if block["type"] == "markdown-block")
    assert "| fzoo |" in text and "deviation over seeds" in text


MODELS, TASKS = ("opt-125m", "opt-1.3b"), ("sst2", "rte", "copa")
METHODS = {"MeZO": "mezo", "FZOO": "fzoo", "AdaMeZO": "adamezo"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """2 models × 3 tasks × 3 methods × 3 seeds × 2 rates, of which 1e-4 is better on dev and 1e-3 on test."""
    base, folder = compose([]).config, tmp_path_factory.mktemp("sweep")
    assert base is not None
    for model, task, method, seed, lr in product(MODELS, TASKS, METHODS, range(3), (1e-4, 1e-3)):
        config = json.loads(json.dumps(base.recorded())) | {"seed": seed}
        config["model"]["name"], config["task"]["name"] = model, task
        config["optimizer"] = {"_target_": f"zo.optimizers.{method}", "lr": lr, "eps": 1e-3}
        name, good = METHODS[method], lr == 1e-4
        path = folder / "default" / f"{model}-{task}-{name}-none" / f"{lr:.0e}".ljust(8, "0") / f"seed{seed}"
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (path / "status.json").write_text(json.dumps({"state": "finished", "time": 0.0}), encoding="utf-8")
        result = {
            "status": "finished", "method": name, "model": model, "task": task, "peft": "none", "seed": seed,
            "config_hash": path.parent.name, "metric": "accuracy", "before": 0.5, "after": 0.7 if good else 0.9,
            "best_dev": 0.8 if good else 0.6, "steps": 1, "forward_passes": 2, "backward_passes": 0,
            "forward_passes_per_step": 2, "seconds": 1.0, "peak_memory_bytes": 1, "train_mode": False,
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def ids(*, model=None, task=None, rates=("1e-04000", "1e-03000")):
    """Of the sweep's runs at W&B."""
    return {
        f"{m}-{t}-{method}-none-{rate}-seed{seed}"
        for m, t, method, rate, seed in product(MODELS, TASKS, METHODS.values(), rates, range(3))
        if model in (None, m) and task in (None, t)
    }


def test_a_sweep_has_panels_for_each_task_and_model_over_the_settings_that_dev_chose(sweep, tmp_path):
    made = built(sweep, tmp_path)
    assert len(list(sweep.rglob("result.json"))) == 108
    columns = sorted((model, task) for model in MODELS for task in TASKS)
    names = [workspace["displayName"] for workspace in made["workspaces"]]
    assert names == [f"Methods compared: {task} · {model}" for model, task in columns]
    for (model, task), workspace in zip(columns, made["workspaces"], strict=True):
        (runset,) = workspace["spec"]["section"]["runSets"]
        expected = ids(model=model, task=task, rates=("1e-04000",))
        held = filters(runset)
        assert set(held["run:name"]) == expected and len(expected) == 9
        assert (held["config:run.value.model"], held["config:task.value.name"]) == ([model], [task])
        found = list(panels(workspace))
        assert {(x, metrics[0]) for _, x, metrics, _ in found} == WANTED and len(found) == len(WANTED)
        for *_, config in found:  # lines by method, and room for every run that the filter leaves
            assert config["groupBy"] == "run.value.method" and config["limit"] == 9
        text = json.dumps(workspace)
        assert all(STYLES[name].light in text for name in METHODS.values())

    shown = Counter()
    for runset, found in grids(made["report"]):
        held = filters(runset)
        column = held["config:run.value.model"][0], held["config:task.value.name"][0]
        assert set(held["run:name"]) == ids(model=column[0], task=column[1], rates=("1e-04000",))
        assert runset["grouping"] == [{"section": "config", "name": "run.value.method"}]
        shown[column] += len(found)
    assert shown == dict.fromkeys(columns, len(WANTED))


def test_with_all_settings_a_line_is_a_setting_and_no_run_is_left_out(sweep, tmp_path):
    made = built(sweep, tmp_path, "--all-settings")
    shown = set()
    for workspace in made["workspaces"]:
        (runset,) = workspace["spec"]["section"]["runSets"]
        held = set(filters(runset)["run:name"])
        assert len(held) == 18 and runset["grouping"] == [{"section": "run", "name": "group"}]
        assert {(c["groupBy"], c["limit"]) for *_, c in panels(workspace)} == {("group", 18)}
        shown |= held
    assert shown == ids() and len(shown) == 108


def test_without_runs_it_is_of_all_the_project(capsys):
    assert main(["dashboard"]) == 0
    made = json.loads(capsys.readouterr().out)
    (workspace,) = made["workspaces"]
    assert workspace["project"] == "zo"
    (runset,) = workspace["spec"]["section"]["runSets"]
    assert [key["name"] for key in runset["grouping"]] == [
        "run.value.model",
        "task.value.name",
        "run.value.method",
    ]
    assert not any(block["type"] == "markdown-block" for block in made["report"]["spec"]["blocks"])


def test_saving_needs_a_key_and_says_so(capsys):
    assert main(["dashboard", "--save"]) == 2
    assert "Set WANDB_API_KEY" in capsys.readouterr().err


def test_a_run_with_a_damaged_configuration_is_named_and_left_out(ended, tmp_path, capsys):
    runs = tmp_path / "runs"
    whole, damaged = (runs / "e" / ended.parents[1].name / f"hash{k}" / "seed0" for k in range(2))
    shutil.copytree(ended, whole)
    shutil.copytree(ended, damaged)
    (damaged / "config.yaml").write_text("bad: [", encoding="utf-8")
    made = built(runs, tmp_path)
    said = capsys.readouterr().err
    assert said.startswith(f"Left out: {damaged}") and "config.yaml" in said
    alone = built(whole, tmp_path)
    (some,), (one,) = (each["workspaces"][0]["spec"]["section"]["runSets"] for each in (made, alone))
    assert filters(some) == filters(one)  # the runs of the whole one alone
    assert main(["dashboard", str(damaged), "--out", str(tmp_path / "d.json")]) == 2
    assert str(damaged) in capsys.readouterr().err
