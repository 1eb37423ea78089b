"""The dashboard's definition, built without a login."""

import json

import pytest

pytest.importorskip(
    "wandb_workspaces", reason="wandb-workspaces is not installed (pip install zo[dashboards])"
)

from experiments.__main__ import main


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


def test_the_definition_compares_methods_over_seeds(ended, tmp_path):
    out = tmp_path / "dashboard.json"
    assert main(["dashboard", str(ended), "--project", "mine", "--entity", "me", "--out", str(out)]) == 0
    built = json.loads(out.read_text())
    workspace, report = built["workspace"], built["report"]
    assert (workspace["project"], workspace["entity"], report["project"]["name"]) == ("mine", "me", "mine")
    wanted = {
        ("forward_passes", "eval/dev_score"), ("seconds", "eval/dev_score"), ("forward_passes", "train/sigma"),
        ("forward_passes", "train/projected_gradient"), (None, "result/after"), (None, "result/peak_memory_bytes"),
    }  # fmt: skip
    for definition in (workspace, report):
        found = list(panels(definition))
        assert wanted <= {(x, metrics[0]) for _, x, metrics, _ in found}
        for _, _, _, config in found:
            assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == ("group", "mean", "stddev")
    name = f"tiny-clm-sentiment-fzoo-none-{ended.parent.name}-seed0"
    (runs,) = workspace["spec"]["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == [name]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    text = next(block["content"] for block in report["spec"]["blocks"] if block["type"] == "markdown-block")
    assert "| fzoo |" in text and "deviation over seeds" in text


def test_without_runs_it_is_of_all_the_project(capsys):
    assert main(["dashboard"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["workspace"]["project"] == "zo"
    assert not any(block["type"] == "markdown-block" for block in built["report"]["spec"]["blocks"])


def test_saving_needs_a_key_and_says_so(capsys):
    assert main(["dashboard", "--save"]) == 2
    assert "set WANDB_API_KEY" in capsys.readouterr().err
