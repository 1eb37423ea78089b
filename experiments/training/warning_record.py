"""Brings into a run's files what is known only while it goes: warnings, and kernels that failed their trial."""

import time

import torch

from experiments.rundir.folder import RunFolder
from experiments.rundir.provenance import provenance
from zo.kernels.trial import left_to_eager
from zo.team import Team
from zo.weights import Weights


class WarningRecord:
    """Keeps status.json and provenance.json up to what folder.warned holds. attention: what the model computes with."""

    def __init__(self, folder: RunFolder, team: Team, attention: str | None):
        self._folder = folder
        self._team = team
        self._attention = attention
        self._written = 0  # warnings of this process that are in the run's files
        self._began = time.time()

    def begin(self, weights: Weights, steps: int) -> None:
        """Writes both files; the run has taken `steps` steps."""
        self._written = len(self._folder.warned)
        self._write_provenance(weights)
        self._folder.write_status("running", steps=steps)

    def look(self, weights: Weights, steps: int) -> None:
        """Writes them again where there are warnings since, so that a run says while it goes what it warned of."""
        if len(self._folder.warned) > self._written:
            self.begin(weights, steps)

    def end(self, weights: Weights) -> list[str]:
        """Returns all warnings of the run, also of the other processes that share it; for each to call."""
        own = self._folder.warned
        for sentences in self._team.every(list(own)):
            own.extend(sentence for sentence in sentences if sentence not in own)
        if own:
            self._write_provenance(weights)
        return self._folder.warnings()

    def _write_provenance(self, weights: Weights) -> None:
        """Writes provenance.json again: failed kernels are known only once they were used."""
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        record = provenance(gpus, torch.get_num_threads(), self._began)
        used = {"kernels": weights.backend, "left_to_eager": left_to_eager(), "attention": self._attention}
        self._folder.write("provenance.json", {**record, **used})
