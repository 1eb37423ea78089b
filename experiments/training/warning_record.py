"""Writes what is known only during a run into its files: warnings, and kernels that failed their trial."""

import time

import torch

from experiments.rundir.folder import RunFolder
from experiments.rundir.provenance import provenance
from zo.kernels.trial import left_to_eager
from zo.team import Team
from zo.weights import Weights


class WarningRecord:
    """Keeps status.json and provenance.json up to date with folder.warned. attention: the model's attention code."""

    def __init__(self, folder: RunFolder, team: Team, attention: str | None):
        self._folder = folder
        self._team = team
        self._attention = attention
        self._written = 0  # warnings of this process that are in the run's files
        self._began = time.time()

    def begin(self, weights: Weights, steps: int) -> None:
        """Writes both files after `steps` steps."""
        self._written = len(self._folder.warned)
        self._write_provenance(weights)
        self._folder.write_status("running", steps=steps)

    def update(self, weights: Weights, steps: int) -> None:
        """Writes both files again if there are new warnings, so that they can be read while the run goes on."""
        if len(self._folder.warned) > self._written:
            self.begin(weights, steps)

    def end(self, weights: Weights) -> list[str]:
        """Returns the warnings of all processes that share the run; every process must call it."""
        warned = self._folder.warned
        for sentences in self._team.every(list(warned)):
            warned.extend(sentence for sentence in sentences if sentence not in warned)
        if warned:
            self._write_provenance(weights)
        return self._folder.warnings()

    def _write_provenance(self, weights: Weights) -> None:
        """Writes provenance.json again, because failed kernels are known only after their first use."""
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        record = provenance(gpus, torch.get_num_threads(), self._began)
        used = {"kernels": weights.backend, "left_to_eager": left_to_eager(), "attention": self._attention}
        self._folder.write("provenance.json", {**record, **used})
