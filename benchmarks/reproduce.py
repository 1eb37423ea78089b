"""Reproduces one row of a paper, from nothing to a verdict: download, check, run, compare.

    python -m benchmarks.reproduce --list
    python -m benchmarks.reproduce roberta-large-sst2
    python -m benchmarks.reproduce roberta-large-sst2 seed=21
    python -m benchmarks.reproduce opt-125m-sst2 model.path=FOLDER task.data_dir=FOLDER

The rows are of one GPU. How long one takes is reckoned by `experiments estimate`, with half of an A100; what takes more
than 15 minutes is refused unless --minutes allows it (also with a stand-in, which would be quicker). What follows the
row's name are overrides as for launch.py: another seed (the mean is over all that are there), folders of the model and
the data, `model.device=cpu` for a stand-in. The same command resumes an interrupted run.

Exit codes: 0 reproduced, 1 not reproduced or the run failed, 2 wrong input. runs/reproduce/<row>/verdict.json has the
published number, ours, the seeds, the seconds and the versions.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.commands.expected import expected
from experiments.config.compose import compose
from experiments.config.problems import did_you_mean, listing
from experiments.config.run_config import RunConfig
from experiments.papers import Published
from experiments.report.cells import cells_of
from experiments.report.published import PublishedPair, compare
from experiments.report.runs import Run, read_runs
from experiments.report.setting_key import setting_key
from zo.errors import ConfigError, DataError

MINUTES = 15.0


@dataclass(frozen=True)
class Row:
    """A number of a paper and the run that should give it.

    minutes: of the whole run on half of an A100, by `experiments estimate`. seeds: behind the published mean, None
    where the paper does not say. note: what is chosen here.
    """

    paper: str
    table: str
    overrides: tuple[str, ...]
    minutes: float
    seeds: int | None
    note: str = ""


ROWS: Mapping[str, Row] = {
    # The one trained row of RoBERTa-large whose published budget is short: 10,000 forward passes, not 200,000.
    "roberta-large-sst2": Row(
        "mezo",
        "6",
        ("experiment=mezo/roberta-large", "task=sst2", "batch.size=16", "budget.forward_passes=10000"),
        11.5,
        5,
        "which of its batches and rates the table chose is unpublished: batch 16 and lr 1e-6 here",
    ),
    "roberta-large-sst2-adamw": Row(
        "mezo",
        "18",
        ("experiment=mezo/roberta-large", "task=sst2", "optimizer=adamw"),
        2.7,
        5,
        "batch 8 and lr 1e-5 here",
    ),
    "roberta-large-sst2-zeroshot": Row(
        "fzoo", "1", ("experiment=fzoo/roberta-large", "task=sst2", "optimizer=none"), 0.5, None
    ),
    "opt-125m-sst2": Row("fzoo", "11", ("experiment=fzoo/opt-125m", "task=sst2"), 31.3, None),
    "opt-1.3b-sst2-zeroshot": Row(
        "adamezo", "3", ("experiment=adamezo/opt-1.3b", "task=sst2", "optimizer=none"), 0.1, None
    ),
}


def main(argv: Sequence[str]) -> int:
    """Returns 0 if reproduced, 1 if not or if the run failed, 2 for wrong input."""
    options = _options(argv)
    if options.list:
        print("\n".join(_listed()))
        return 0
    try:
        return reproduce(options.row, options.overrides, options.runs / str(options.row), options.minutes)
    except (ConfigError, DataError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("row", nargs="?", metavar="ROW", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("overrides", nargs="*", help="as for launch.py: seed=21, model.path=FOLDER")
    parser.add_argument(
        "--list", action="store_true", help="the rows, with what they need and what is published"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/reproduce"), help="the folder above the row's"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the longest estimated time to allow")
    options = parser.parse_intermixed_args(argv)  # overrides may follow a flag
    if options.row is None and not options.list:
        parser.error("name a row, or use --list")
    return options


def _listed() -> list[str]:
    """Returns a line per row: its name, minutes, published number and command."""
    lines = []
    for name, row in ROWS.items():
        config = _config(row, (), Path("runs"))
        number = _published(row, config)
        expectation = f"{row.minutes:5.1f} min  {number.value:.1f} within {number.tolerance:.1f}"
        lines.append(f"{name:28} {expectation}  {row.paper}, Table {row.table}: {' '.join(row.overrides)}")
    return lines


def reproduce(name: str, overrides: Sequence[str], runs: Path, minutes: float) -> int:
    """Checks, downloads, runs and compares; writes verdict.json into `runs`. Returns the exit code."""
    if name not in ROWS:
        raise ConfigError(
            f"{name}: there is no such row.{did_you_mean(name, ROWS)} Rows: {', '.join(ROWS)}; --list shows them."
        )
    row = ROWS[name]
    config = _config(row, overrides, runs)
    number = _published(row, config)
    _check_device(config)
    if row.minutes > minutes:
        raise ConfigError(
            f"{name} takes an estimated {row.minutes:.0f} minutes of half an A100, but --minutes allows {minutes:g}. "
            f"Allow more (--minutes {row.minutes * 1.2:.0f}), or choose another row (--list)."
        )
    print(
        f"{name}: {row.paper}, Table {row.table}, prints {number.value:.1f}. About {row.minutes:g} minutes of a GPU."
    )
    from experiments.commands.launch import main as launch
    from experiments.commands.prefetch import prefetch

    if (code := prefetch([config])) != 0:
        return code
    if (code := launch([*row.overrides, *_own(runs), *overrides])) != 0:
        return 2 if code == 2 else 1
    ran = [run for run in read_runs([runs]) if run.setting == setting_key(config.recorded())]
    (beside,) = compare(cells_of(ran), [number])
    _write(runs / "verdict.json", name, row, beside, ran)
    print(sentence(row, beside))
    return 0 if beside.verdict == "reproduced" else 1


def _own(runs: Path) -> list[str]:
    return [f"paths.runs={runs}", "save=false"]


def _config(row: Row, overrides: Sequence[str], runs: Path) -> RunConfig:
    """Returns the checked configuration. Raises ConfigError with all problems."""
    composed = compose([*row.overrides, *_own(runs), *overrides])
    if composed.problems or composed.config is None:
        raise ConfigError(listing(composed.problems))
    return composed.config


def _published(row: Row, config: RunConfig) -> Published:
    """Returns the row's number. Raises ConfigError if overrides have turned it into another run."""
    numbers = [n for n in expected(config) if (n.paper, n.table) == (row.paper, row.table)]
    if not numbers:
        raise ConfigError(
            f"{row.paper}'s Table {row.table} has no number for this run: the overrides change its model, task, method "
            f"or budget. The row is {' '.join(row.overrides)}; leave these as they are, or use launch.py."
        )
    return numbers[0]


def _check_device(config: RunConfig) -> None:
    """Raises ConfigError if a model that needs a GPU would run on a CPU by mistake."""
    import torch

    wants = config.model.resources.gpus > 0 and config.model.device == "auto"
    if wants and not torch.cuda.is_available():
        raise ConfigError(
            "No GPU was found. This row takes minutes on a GPU and days on a CPU. Run it on a machine with a GPU, "
            "or set model.device=cpu if the model is a small stand-in."
        )


def sentence(row: Row, pair: PublishedPair) -> str:
    """Returns the verdict in words, with what the means are over."""
    number = pair.published
    basis = "two published deviations" if number.deviation else "the paper prints no deviation"
    if pair.ours is None:
        return f"Not run: no result of {number.method} on {number.task} is there."
    theirs = f"the mean of {row.seeds} seeds" if row.seeds else "over seeds that the paper does not say"
    ours = f"{pair.ours:.1f} over {pair.n} seed{'s' if pair.n > 1 else ''}"
    text = (
        f"{pair.verdict.capitalize()}: {ours}; published {number.value:.1f}, {theirs}; "
        f"within {number.tolerance:.1f} ({basis}) counts as reproduced."
    )
    return f"{text} {row.note[0].upper()}{row.note[1:]}." if row.note else text


def _write(path: Path, name: str, row: Row, pair: PublishedPair, runs: Sequence[Run]) -> None:
    """Writes everything that the verdict rests on."""
    results = [
        {"seed": run.seed, "status": run.status, "folder": str(run.folder), "commit": run.commit}
        | {
            key: (run.result or {}).get(key)
            for key in ("after", "seconds", "forward_passes", "peak_memory_bytes")
        }
        for run in runs
    ]
    published = asdict(pair.published) | {"within": pair.published.tolerance, "seeds": row.seeds}
    content = {
        "row": name,
        "verdict": pair.verdict,
        "ours": pair.ours,
        "deviation": pair.deviation,
        "n": pair.n,
        "published": published,
        "overrides": list(row.overrides),
        "note": row.note,
        "runs": results,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
