"""The tables of docs/study.md say what the committed rows of its runs hold."""

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "study.md").read_text()
PLAIN = "{}"


def rows(name, task, dtype="float32", update="nearest"):
    """Rows by (method, options), (schedule, rate) and seed."""
    found = defaultdict(lambda: defaultdict(dict))
    for row in json.loads((ROOT / "docs" / "results" / name).read_text()):
        if (row["task"], row["dtype"], row["update"]) == (task, dtype, update):
            setting = (row["schedule"], f"{row['lr']:g}")
            found[row["method"], json.dumps(row["options"], sort_keys=True)][setting][row["seed"]] = row
    return found


def table(heading):
    """The cells of the first table under a heading, its head apart."""
    section = PAGE.split(f"{heading}\n", 1)[1]
    lines = re.findall(r"\n((?:\|.*\n)+)", section)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def spread(values):
    return f"{100 * fmean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def setting_of(text):
    rate, schedule = text.split(", ")
    return schedule, f"{float(rate):g}"


@pytest.mark.parametrize(("heading", "task"), [("## SST-2", "sst2"), ("## TREC", "trec"), ("## RTE", "rte")])
def test_tries(heading, task):
    found = rows(f"study-{task}.json", task)
    shown = table(heading)
    assert {cells[0] for cells in shown} == {method for method, options in found if options == PLAIN}
    for method, tries, setting, dev, test, seeds, memory in shown:
        mine = found[method, PLAIN]
        chosen = [row for _, row in sorted(mine[setting_of(setting)].items())]
        assert len(mine) == int(tries) and [row["seed"] for row in chosen] == [0, 1, 2]
        assert dev == spread([row["best_dev"] for row in chosen])
        assert test == spread([row["after"] for row in chosen])
        assert seeds == ", ".join(f"{100 * row['after']:.1f}" for row in chosen)
        assert memory == f"{max(row['peak_memory_bytes'] for row in chosen) / 2**20:,.0f} MiB"
        # Chosen on dev, on the seed that all tries share, never on test.
        assert chosen[0]["best_dev"] == max(runs[0]["best_dev"] for runs in mine.values() if 0 in runs)


def test_updates():
    shown = table("### Accuracy by update")
    assert [cells[3] for cells in shown] == ["nearest", "stochastic", "master"] * 2
    for method, rate, dtype, update, dev, test, seeds in shown:
        found = rows("study-sst2.json", "sst2", dtype, update)
        chosen = [row for _, row in sorted(found[method, PLAIN][setting_of(rate)].items())]
        assert [row["seed"] for row in chosen] == [0, 1, 2]
        assert seeds == ", ".join(f"{100 * row['after']:.1f}" for row in chosen)
        assert dev == spread([row["best_dev"] for row in chosen])
        assert test == spread([row["after"] for row in chosen])


def test_built_in():
    found = rows("study-builtin.json", "entailment")
    for method, tries, setting, dev, test, *_ in table("## Built-in tasks, all methods"):
        mine = found[method, PLAIN]
        good = sum(runs[0]["best_dev"] >= 0.95 for runs in mine.values() if 0 in runs)
        assert tries == f"{len(mine)}, {good}"
        chosen = [row for _, row in sorted(mine[setting_of(setting)].items())]
        assert [row["seed"] for row in chosen] == [0, 1, 2]
        assert (dev, test) == (
            spread([row["best_dev"] for row in chosen]),
            spread([row["after"] for row in chosen]),
        )
        assert chosen[0]["best_dev"] == max(runs[0]["best_dev"] for runs in mine.values() if 0 in runs)


OPTIONS = {
    "FZOO": ("fzoo", {}),
    "linear": ("fzoo", {}),
    "Gaussian": ("fzoo", {"directions": "gaussian"}),
    "n/2": ("fzoo", {"sides": "two"}),
    "mean": ("fzoo", {"baseline": "others"}),
    "MeZO’s": ("fzoo", {"n": 2, "sides": "two", "running": 0.9, "directions": "gaussian"}),
    "MeZO": ("mezo", {}),
}


@pytest.mark.parametrize(
    ("heading", "name", "task"),
    [
        ("### FZOO taken apart on SST-2", "study-sst2.json", "sst2"),
        ("### FZOO taken apart on entailment", "study-builtin.json", "entailment"),
    ],
)
def test_ablation(heading, name, task):
    found = rows(name, task)
    shown = table(heading)
    assert len(shown) == len(OPTIONS)
    for variant, setting, dev, test, seeds, *_ in shown:
        method, options = OPTIONS[re.split("[ :]", variant)[0]]
        chosen = list(found[method, json.dumps(options, sort_keys=True)][setting_of(setting)].values())
        assert len(chosen) == int(seeds)
        assert (dev, test) == (
            spread([row["best_dev"] for row in chosen]),
            spread([row["after"] for row in chosen]),
        )
