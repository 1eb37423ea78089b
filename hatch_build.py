"""Writes the commit into wheel and sdist, where experiments.rundir.provenance finds it: an installation has no git."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RECORD = "CODE.json"


class CommitHook(BuildHookInterface):
    """Adds CODE.json to what is built. A wheel that is built from an sdist takes over the sdist's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Places the file in the package of a wheel, or at the root of an sdist; an editable install has git."""
        self._scratch = Path(tempfile.mkdtemp(prefix="zo-build-"))
        if version == "editable":
            return
        record = Path(self.root) / RECORD
        if not record.is_file():
            record = self._scratch / RECORD
            record.write_text(json.dumps(_source(self.root)), encoding="utf-8")
        place = RECORD if self.target_name == "sdist" else f"experiments/{RECORD}"
        build_data["force_include"][str(record)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the scratch folder."""
        shutil.rmtree(self._scratch)


def _source(root: str) -> dict[str, Any]:
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "diff": None,  # the wheel holds the code itself
    }


def _git(root: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
