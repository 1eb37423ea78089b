"""python -m experiments sync, dashboard: runs in trackers, from run folders."""

import argparse
from pathlib import Path
from typing import Any

from experiments.commands.arguments import runs_folder
from experiments.display.console import new_console

COMMANDS = {
    "sync": "upload runs to a tracker, or make its files anew",
    "dashboard": "W&B workspaces and a report that compare methods",
}


def add(commands: Any) -> None:
    """The commands' arguments."""
    sync, dashboard = (commands.add_parser(name, help=words) for name, words in COMMANDS.items())
    sync.add_argument(
        "runs", type=runs_folder, nargs="+", help="folders: a sweep's, runs', or one above runs"
    )
    sync.add_argument(
        "--to", choices=("wandb", "tensorboard", "trackio"), help="default: each run's own, else wandb"
    )
    sync.add_argument("--mode", choices=("online", "offline"), default="online", help="of wandb")
    dashboard.add_argument(
        "runs", type=runs_folder, nargs="*", help="the runs to compare; default: the project's"
    )
    dashboard.add_argument("--out", type=Path, help="a JSON file for the definition; default: printed")
    dashboard.add_argument("--save", action="store_true", help="make it at W&B, which needs a key")
    dashboard.add_argument(
        "--all-settings", action="store_true", help="show every setting, not only the one that dev chose"
    )
    for command in (sync, dashboard):
        command.add_argument("--project", help="default: each run's own, else zo")
        command.add_argument("--entity", help="W&B's user or team")


def perform(request: argparse.Namespace) -> int:
    """0 done, 1 a tracker refused a run; raises ConfigError for wrong input."""
    from experiments.launching.states import find_runs  # late, as what follows

    folders = find_runs(request.runs) if request.runs else []
    console = new_console(soft_wrap=True)
    if request.command == "sync":
        from experiments.report.tracker_sync import sync

        return sync(
            folders,
            console.print,
            to=request.to,
            mode=request.mode,
            project=request.project,
            entity=request.entity,
        )
    from experiments.report.wandb_dashboard import dashboard

    return dashboard(
        folders,
        console.print,
        out=request.out,
        save=request.save,
        project=request.project,
        entity=request.entity,
        all_settings=request.all_settings,
    )
