"""Builds W&B workspaces and a W&B report that compare methods: python -m experiments dashboard (wandb-workspaces).

There is a workspace for each model and task, and a section of the report: panels over those runs alone, in which a line
or a bar is a method, its mean over seeds with the deviation. The score on dev against forward passes and against
seconds, the loss on dev, the score on test, costs, and what the method saw. A workspace of W&B has one filter for all
its panels, hence several workspaces. Given runs, the filter is their model, task and peft and the setting that dev
chose for each method (experiments.report); with --all-settings every setting is a line of its own. Without runs there
is one workspace over the whole project, grouped by model, task and method. Without --save the definition is written as
JSON, for which no key is needed.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config.run_config import RunConfig
from experiments.config.saved import load_config
from experiments.report.chart_data import column_label
from experiments.report.colours import styles
from experiments.report.comparison import Comparison, comparison
from experiments.report.render import markdown
from experiments.report.runs import read_runs
from experiments.report.tables.builders import results
from experiments.report.tracker_sync import own_tracker
from experiments.trackers.opening import about_run
from experiments.trackers.wandb import has_key
from zo.errors import ConfigError, DataError

NAME = "Methods compared"
_ALL = 1000  # runs of a whole project that a panel takes in; W&B has no word for all
_BARS = 100
_LINES = {
    False: "A line or bar is a method: of the setting that dev chose the mean over seeds, and the deviation.",
    True: "A line or bar is a setting, whether dev chose it or not: its mean over seeds, and the deviation.",
}
_COLUMNS = (
    "result/after",
    "result/best_dev",
    "result/best_dev_loss",
    "result/forward_passes",
    "result/seconds",
    "result/peak_memory_bytes",
)


@dataclass(frozen=True)
class Column:
    """The runs of one model and task, shown in a workspace and a section of the report.

    ids: of W&B; none: all runs of the project. filters: keys of the configuration and their value here. methods: that
    have a line. undecided: methods of which dev chose no setting, and of which all settings are averaged.
    """

    label: str
    ids: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()


def dashboard(
    folders: Sequence[Path],
    say: Callable[[str], None],
    *,
    out: Path | None = None,
    save: bool = False,
    project: str | None = None,
    entity: str | None = None,
    all_settings: bool = False,
) -> int:
    """Builds and saves the dashboard; returns 0.

    Raises ConfigError for a missing package, key or entity, DataError if W&B refuses.

    folders: the runs to compare; none: all of the project. all_settings: also those that dev did not choose.
    """
    configs = _readable(folders)
    folders, owns = list(configs), [own_tracker(config) for config in configs.values()]
    project = project or str(next((own["project"] for own in owns if "project" in own), "zo"))
    entity = entity or next((own["entity"] for own in owns if own.get("entity")), None)
    if save:
        entity = _account(entity)
    made = comparison(read_runs(folders), title=NAME) if folders else None
    table = None if made is None else markdown(results(made))
    columns = [Column("All runs")] if made is None else columns_of(made, all_settings)
    try:
        workspaces, report = build(
            project, entity or "", columns, table, all_settings=all_settings, lookup=save
        )
    except ImportError as error:
        raise ConfigError(
            'dashboard needs the package wandb-workspaces: pip install "wandb-workspaces>=0.4.13".'
        ) from error
    if not save:
        plain = {"workspaces": [_plain(each) for each in workspaces], "report": _plain(report)}
        text = json.dumps(plain, indent=2) + "\n"
        if out is None:
            say(text)
        else:
            out.write_text(text, encoding="utf-8")
            say(f"The definition is {out}; --save makes it at W&B.")
        return 0
    try:
        for column, workspace in zip(columns, workspaces, strict=True):
            say(f"The workspace of {column.label} is {workspace.save().url}")
        say(f"The report is {report.save().url}")
    except Exception as error:  # requests', graphql's and W&B's own kinds, by what the server answers
        raise DataError(f"W&B did not take the dashboard: {' '.join(str(error).split())}") from error
    return 0


def _readable(folders: Sequence[Path]) -> dict[Path, RunConfig]:
    """Returns the configurations of runs by folder; one that cannot be read is named on stderr and left out.

    Raises ConfigError where none can be read.
    """
    configs, wrong = {}, []
    for folder in folders:
        try:
            configs[folder] = load_config(folder)
        except ConfigError as error:
            wrong.append(str(error))
    if wrong and not configs:
        raise ConfigError("\n".join(wrong))
    for words in wrong:
        sys.stderr.write(f"Left out: {words}\n")
    return configs


def columns_of(made: Comparison, all_settings: bool) -> list[Column]:
    """Returns a column for each model and task (and peft) of a comparison that has a run."""
    columns = []
    for key in made.columns:
        cells = [cell for method in made.methods if (cell := made.cell(method, key)) is not None]
        shown = {
            cell.method: cell.settings if all_settings or cell.chosen is None else (cell.chosen,)
            for cell in cells
        }
        abouts = [
            about_run(load_config(run.folder), run.folder)
            for settings in shown.values()
            for setting in settings
            for run in setting.runs
            if run.status != "missing"
        ]
        if not abouts:
            continue
        about = abouts[0].config
        filters = {
            "run.model": about["run"]["model"],
            "task.name": about["task"]["name"],
            "peft.name": about["peft"]["name"],
        }
        undecided = tuple(cell.method for cell in cells if cell.chosen is None)
        columns.append(
            Column(
                column_label(key), tuple(about.id for about in abouts), filters, tuple(shown),
                () if all_settings else undecided,
            )
        )  # fmt: skip
    return columns


def _account(entity: str | None) -> str:
    """Returns the account to save to. Raises ConfigError without a key."""
    if not has_key():
        raise ConfigError(
            "--save makes the dashboard at W&B, and there is no key here: set WANDB_API_KEY, or log in with wandb "
            "login. Without --save the definition is written, which needs none."
        )
    if entity is None:
        raise ConfigError("--save needs to know whose project it is: --entity NAME, the user or team.")
    return entity


def build(
    project: str,
    entity: str,
    columns: Sequence[Column],
    table: str | None,
    *,
    all_settings: bool,
    lookup: bool,
) -> tuple[list[Any], Any]:
    """Returns the workspaces, one per column, and the report. table: Markdown for the report.

    lookup: names the project to the report's runs, for which W&B is asked.
    """
    import wandb_workspaces.reports.v2 as reports

    made = [_workspace(project, entity, column, all_settings) for column in columns]
    blocks: list[Any] = [reports.P(_LINES[all_settings])]
    if table is not None:
        blocks += [reports.H2("Results"), reports.MarkdownBlock(table)]
    for column in columns:
        blocks.append(reports.H2(column.label))
        if column.undecided:
            blocks.append(
                reports.P(f"Dev chose no setting, so that all are averaged: {', '.join(column.undecided)}.")
            )
        runset = reports.Runset(
            entity=entity if lookup else "",
            project=project if lookup else "",
            name=column.label,
            filters=_filters(column),
            groupby=["Group" if all_settings else f"config.{key}" for key in _groups(column)],
            pinned_columns=_pinned(),
        )
        for name, some in panels(column, all_settings).items():  # panels of their own: each has an id
            blocks += [reports.H3(name), reports.PanelGrid(runsets=[runset], panels=_placed(some))]
    report = reports.Report(
        project=project, entity=entity, title=NAME, description="Made by zo.", blocks=blocks, width="fluid"
    )
    return made, report


def _workspace(project: str, entity: str, column: Column, all_settings: bool) -> Any:
    """Returns a workspace over the runs of a column, with the line colours of the local report."""
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    by_method = not all_settings and bool(column.methods)
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{NAME}: {column.label}",
        sections=[
            workspaces.Section(name, panels=some, is_open=True, layout_settings=_layout(some))
            for name, some in panels(column, all_settings).items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis="forward_passes", max_runs=_most(column)),
        runset_settings=workspaces.RunsetSettings(
            filters=_filters(column),
            groupby=[expr.Metric("Group")] if all_settings else [expr.Config(key) for key in _groups(column)],
            group_colors={name: look.light for name, look in styles(column.methods).items()}
            if by_method
            else {},
            pinned_columns=_pinned(),
        ),
    )


def _filters(column: Column) -> Any:
    """Returns filters for the column's model, task and peft, and for the runs of the settings shown."""
    from wandb_workspaces import expr

    if not column.ids:
        return ""
    return expr.And(
        *(expr.Config(_nested(key)).isin([value]) for key, value in column.filters.items()),
        expr.Metric("ID").isin(list(column.ids)),
    )


def _nested(key: str) -> str:
    """Returns run.model as W&B's filters name it, run.value.model; groupings add the word themselves."""
    group, _, leaf = key.partition(".")
    return f"{group}.value.{leaf}"


def _groups(column: Column) -> tuple[str, ...]:
    """Returns the configuration keys that separate lines; over the whole project also model and task."""
    return ("run.method",) if column.ids else ("run.model", "task.name", "run.method")


def _most(column: Column) -> int:
    """Returns the number of runs of a panel: all that its filter leaves."""
    return len(column.ids) or _ALL


def _pinned() -> list[str]:
    return [f"summary:{key}" for key in _COLUMNS]


def panels(column: Column, all_settings: bool = False) -> dict[str, list[Any]]:
    """Returns the panels of a column by section."""
    from wandb_workspaces.reports.v2 import BarPlot, Config, LinePlot

    over: dict[str, Any] = {
        "groupby": "Group" if all_settings else Config("run.method"),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
        "max_runs_to_show": _most(column),
    }
    if not column.ids:
        over["groupby"] = None  # by all three keys of the runset, of which a panel can name one alone
        over["aggregate"] = True

    def lines(title: str, x: str, y: str, log: bool = False) -> Any:
        return LinePlot(title=title, x=x, y=[y], log_x=log, title_x=x.replace("_", " "), **over)

    def bars(title: str, metric: str) -> Any:
        return BarPlot(title=title, metrics=[metric], max_bars_to_show=_BARS, **over)

    return {
        "Score": [
            lines("Score on dev against forward passes", "forward_passes", "eval/dev_score", log=True),
            lines("Loss on dev against forward passes", "forward_passes", "eval/dev_loss", log=True),
            lines("Score on dev against seconds", "seconds", "eval/dev_score", log=True),
            bars("Score on test", "result/after"),
        ],
        "Cost": [
            bars("Peak memory, bytes", "result/peak_memory_bytes"),
            bars("Seconds", "result/seconds"),
            bars("Forward passes of the training", "result/forward_passes"),
        ],
        "Estimates": [
            lines("Loss", "forward_passes", "train/loss"),
            lines("Spread of the losses, σ", "forward_passes", "train/sigma"),
            lines("Projected gradient", "forward_passes", "train/projected_gradient"),
        ],
    }


def _layout(some: Sequence[Any]) -> Any:
    from wandb_workspaces.workspaces import SectionLayoutSettings

    return SectionLayoutSettings(columns=len(some), rows=1)


def _placed(some: Sequence[Any]) -> list[Any]:
    """Places panels side by side; a report is 24 columns wide."""
    from wandb_workspaces.reports.v2 import Layout

    width = 24 // len(some)
    for number, panel in enumerate(some):
        panel.layout = Layout(x=number * width, y=0, w=width, h=8)
    return list(some)


def _plain(built: Any) -> dict[str, Any]:
    """Returns the definition as W&B's server takes it."""
    return built._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
