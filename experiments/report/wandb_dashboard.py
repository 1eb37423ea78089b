"""python -m experiments dashboard: a W&B workspace and a W&B report that compare methods, as code (wandb-workspaces).

Both hold the same panels over runs grouped by configuration, so that every line and bar is a mean over seeds with its
deviation: the score on dev against forward passes and against seconds, the score on test and peak memory as bars,
the spread of losses σ and projected gradients. Given runs, only those are shown, and the report begins with
the table of experiments.report (settings chosen on dev; mean ± deviation over seeds). Without --save the definition
is written as JSON, for which no key is needed.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.config.saved import load_config
from experiments.report.tracker_sync import own_tracker
from experiments.trackers.opening import about_run
from experiments.trackers.wandb import has_key
from zo.errors import ConfigError, DataError

NAME = "Methods compared"
_COLUMNS = (
    "result/after",
    "result/best_dev",
    "result/forward_passes",
    "result/seconds",
    "result/peak_memory_bytes",
)


def dashboard(
    folders: Sequence[Path],
    say: Callable[[str], None],
    *,
    out: Path | None = None,
    save: bool = False,
    project: str | None = None,
    entity: str | None = None,
) -> int:
    """0 done; raises ConfigError for a missing package, key or entity, DataError where W&B refuses.

    folders: the runs to compare; none: all of the project.
    """
    abouts = [about_run(load_config(folder), folder) for folder in folders]
    owns = [own_tracker(load_config(folder)) for folder in folders]
    project = project or str(next((own["project"] for own in owns if "project" in own), "zo"))
    entity = entity or next((own["entity"] for own in owns if own.get("entity")), None)
    if save:
        entity = _account(entity)
    table = _table(folders) if folders else None
    try:
        workspace, report = build(project, entity or "", [about.id for about in abouts], table, lookup=save)
    except ImportError as error:
        raise ConfigError(
            'dashboard needs the package wandb-workspaces: pip install "wandb-workspaces>=0.4.13".'
        ) from error
    if not save:
        text = json.dumps({"workspace": _plain(workspace), "report": _plain(report)}, indent=2) + "\n"
        if out is None:
            say(text)
        else:
            out.write_text(text, encoding="utf-8")
            say(f"The definition is {out}; --save makes it at W&B.")
        return 0
    try:
        say(f"The workspace is {workspace.save().url}")
        say(f"The report is {report.save().url}")
    except Exception as error:
        raise DataError(f"W&B did not take the dashboard: {' '.join(str(error).split())}") from error
    return 0


def _account(entity: str | None) -> str:
    """Where to save; raises ConfigError without a key."""
    if not has_key():
        raise ConfigError(
            "--save makes the dashboard at W&B, and there is no key here: set WANDB_API_KEY, or log in with wandb "
            "login. Without --save the definition is written, which needs none."
        )
    if entity is None:
        raise ConfigError("--save needs to know whose project it is: --entity NAME, the user or team.")
    return entity


def build(
    project: str, entity: str, ids: Sequence[str], table: str | None, *, lookup: bool
) -> tuple[Any, Any]:
    """The workspace and the report. ids: of the runs, all where there are none. table: Markdown for the report.

    lookup: names the project to the report's runs, for which W&B is asked.
    """
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    parts = panels()
    only: Any = expr.And(expr.Metric("ID").isin(list(ids))) if ids else ""
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name, panels=some, is_open=True, layout_settings=_layout(some))
            for name, some in parts.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis="forward_passes", max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=only,
            groupby=[expr.Metric("Group")],
            pinned_columns=[f"summary:{key}" for key in _COLUMNS],
        ),
    )
    runset = reports.Runset(
        entity=entity if lookup else "",
        project=project if lookup else "",
        name="Runs, by configuration",
        filters=only,
        groupby=["Group"],
        pinned_columns=[f"summary:{key}" for key in _COLUMNS],
    )
    blocks: list[Any] = [
        reports.P("A line or bar is a configuration: its mean over seeds, and the deviation.")
    ]
    if table is not None:
        blocks += [reports.H2("Results"), reports.MarkdownBlock(table)]
    for name, some in panels().items():  # panels of their own: each has an id
        blocks += [reports.H2(name), reports.PanelGrid(runsets=[runset], panels=_placed(some))]
    report = reports.Report(
        project=project, entity=entity, title=NAME, description="Made by zo.", blocks=blocks, width="fluid"
    )
    return workspace, report


def panels() -> dict[str, list[Any]]:
    """The panels by section."""
    return {
        "Score": [
            _lines("Score on dev against forward passes", "forward_passes", "eval/dev_score", log=True),
            _lines("Score on dev against seconds", "seconds", "eval/dev_score", log=True),
            _bars("Score on test", "result/after"),
        ],
        "Cost": [
            _bars("Peak memory, bytes", "result/peak_memory_bytes"),
            _bars("Seconds", "result/seconds"),
            _bars("Forward passes of the training", "result/forward_passes"),
        ],
        "Estimates": [
            _lines("Loss", "forward_passes", "train/loss"),
            _lines("Spread of the losses, σ", "forward_passes", "train/sigma"),
            _lines("Projected gradient", "forward_passes", "train/projected_gradient"),
        ],
    }


_OVER_SEEDS: dict[str, Any] = {"groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}


def _lines(title: str, x: str, y: str, log: bool = False) -> Any:
    from wandb_workspaces.reports.v2 import LinePlot

    return LinePlot(
        title=title, x=x, y=[y], log_x=log, title_x=x.replace("_", " "), max_runs_to_show=100, **_OVER_SEEDS
    )


def _bars(title: str, metric: str) -> Any:
    from wandb_workspaces.reports.v2 import BarPlot

    return BarPlot(title=title, metrics=[metric], max_runs_to_show=100, max_bars_to_show=50, **_OVER_SEEDS)


def _layout(some: Sequence[Any]) -> Any:
    from wandb_workspaces.workspaces import SectionLayoutSettings

    return SectionLayoutSettings(columns=len(some), rows=1)


def _placed(some: Sequence[Any]) -> list[Any]:
    """Side by side; a report is 24 columns wide."""
    from wandb_workspaces.reports.v2 import Layout

    width = 24 // len(some)
    for number, panel in enumerate(some):
        panel.layout = Layout(x=number * width, y=0, w=width, h=8)
    return list(some)


def _table(folders: Sequence[Path]) -> str:
    """Method × task: mean ± deviation over seeds, from the runs' own files."""
    from experiments.report.comparison import comparison
    from experiments.report.render import markdown
    from experiments.report.runs import read_runs
    from experiments.report.tables.builders import results

    return markdown(results(comparison(read_runs(folders), title=NAME)))


def _plain(built: Any) -> dict[str, Any]:
    """The definition as W&B's server takes it."""
    return built._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
