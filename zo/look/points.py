"""The probes that an executor evaluates at, and how their tensors are made."""

from collections.abc import Sequence
from itertools import groupby

from zo.directions import Probe


class Points:
    """The active probes, sorted once for all sites of a model.

    moved: those that have terms. runs: neighbours on the same keys, or without any. longest: of the runs with keys.
    """

    def __init__(self, probes: Sequence[Probe]):
        self.probes = probes
        self.moved = [probe for probe in probes if probe.terms]
        self.runs = [list(run) for _, run in groupby(probes, key=lambda p: [key for key, _ in p.terms])]
        self.longest = max((len(run) for run in self.runs if run[0].terms), default=0)
