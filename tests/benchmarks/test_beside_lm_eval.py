"""The table beside lm-evaluation-harness is that of the committed results."""

import json
from pathlib import Path

from benchmarks import table
from benchmarks.beside_lm_eval import EXAMPLES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_page_shows_every_committed_row(tmp_path):
    table.write(RESULTS, tmp_path / "page.md")
    made = (tmp_path / "page.md").read_text(encoding="utf-8")
    section = made.partition("## Beside lm-evaluation-harness\n")[2].partition("\n## ")[0]
    assert section in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [
        row for path in (RESULTS / "lm_eval").glob("*.json") for row in json.loads(path.read_text("utf-8"))
    ]
    lines = [line.split(" | ") for line in section.splitlines() if line.startswith("| smollm2")]
    assert sorted((line[1], line[2], line[7]) for line in lines) == sorted(
        (row["dtype"], row["task"], f"{row['equal']} of {row['examples']}") for row in rows
    )
    assert {row["task"] for row in rows} <= set(EXAMPLES)
