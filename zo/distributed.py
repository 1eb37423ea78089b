"""Several processes, one run: they share scalars, never weights.

    losses = look(my probes, my part of the batch)      # ranks look at different things
    all-gather(losses, stop flag, clock, checksum)      # once a step, some hundred bytes
    optimizer.tell(t, all losses)                       # every rank makes the same move

`share` says what is divided. With "probes" rank r of R looks at the r-th of R runs of the step's probes, and
every loss is computed and rounded as in one process, so the weights are the same bits. With "batch" every
rank looks at all probes on its part of the rows; (Σ w l, Σ w) of the parts are added in rank order, in
float64, which differs from one process by the rounding of matrix products of another shape (1e-6). The
batch is padded before it is cut, so a row is what it was. "both" forms as many groups of ranks as divide
them and have a probe each; a group shares its probes, and the batch is cut within it. With "own" every rank is
given rows of its own, by a data loader that deals them out, and the sums are added as with "batch".

All ranks hold θ and move it by themselves; every check_every steps a checksum of θ travels with the losses,
and ranks that differ are named. A process that dies closes its connections, so the gather of the others
fails at once; one that hangs is given up after `timeout`. Only this module imports torch.distributed.
"""

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist

from zo.errors import ConfigError, RankLost, RanksDiverged
from zo.fields import AtLeastOne, check
from zo.look import InPlace, Look, SharedLook
from zo.optimizers import Optimizer
from zo.optimizers.optimizer import Looker
from zo.rank_env import RankInfo, devices_of, shared_devices
from zo.rank_env import rank_info as place_in
from zo.team import Report, Solo, T, Team
from zo.weights import Weights

__all__ = ["Ranks", "Solo", "Team"]

Share = Literal["probes", "batch", "both", "own"]
_NONE = -1.0  # in place of a checksum that is not due
_HEAD = 5  # step, stop, clock, and the checksum in two halves that float64 holds exactly


class Ranks(Team):
    """Several processes over torch.distributed. A context, which joins them on entering, and parts them on leaving.

    Where a program has joined them already (accelerate does), it takes part in that group and leaves it as it is.

    place: where this process stands, by default as torchrun or srun said.
    share: "probes", "batch", "both" or "own". check_every: steps between checksums of θ.
    backend: "gloo", "nccl", or "auto": nccl where every process has GPUs of its own.
    gpus: that each process takes as its own, which is refused where some would be shared; 0: none; None: one, which
    several may share.
    timeout: seconds that a rank is waited for, at the start and in every exchange.

    Raises RankLost when a process ends, hangs or does not come; RanksDiverged when they differ.
    """

    def __init__(
        self,
        place: RankInfo | None = None,
        *,
        share: Share = "probes",
        check_every: int = 100,
        backend: str = "auto",
        timeout: float = 600.0,
        gpus: int | None = None,
    ):
        check("ranks.share", share, Share)
        check("ranks.check_every", check_every, AtLeastOne)
        self.place = place = place_in(os.environ) if place is None else place
        self.rank, self.size = place.rank, place.size
        self.share = share
        self.check_every = check_every
        self.timeout = timeout
        self.report: Report = lambda: (0, 0.0)
        self.backend = backend  # auto until the processes have met
        self._own = gpus is not None
        self._joined = False  # by this context
        visible = torch.cuda.device_count()
        if gpus is None:
            self.devices = [place.local % visible] if visible else []
        else:
            self.devices = devices_of(place, visible, gpus) if gpus else []
        if self.devices:
            torch.cuda.set_device(self.devices[0])
        self._device = torch.device("cpu")
        self._stop = 0
        self._seconds: float | None = None
        self._step = 0
        self._due = True

    def __enter__(self) -> "Ranks":
        if dist.is_initialized():
            self.rank, self.size, self.backend = dist.get_rank(), dist.get_world_size(), dist.get_backend()
            self._device = torch.device("cuda" if self.backend == "nccl" else "cpu")
            return self
        where = f"{self.place.address}:{self.place.port}"
        try:
            limit = timedelta(seconds=self.timeout)
            store, *_ = next(dist.rendezvous(f"tcp://{where}", self.rank, self.size, timeout=limit))
            store.set_timeout(limit)
            self.backend = _backend(self.backend, self._meet(store), self._own)
            dist.init_process_group(
                self.backend,
                store=dist.PrefixStore("group", store),
                rank=self.rank,
                world_size=self.size,
                timeout=limit,
            )
        except (RuntimeError, ValueError) as error:
            raise RankLost(
                f"Rank {self.rank} did not meet the other {self.size - 1} at {where} within {self.timeout:g} seconds: "
                f"{_line(error)}. Look for the first error of another rank, or for a firewall between the machines."
            ) from error
        self._device = torch.device("cuda" if self.backend == "nccl" else "cpu")
        self._joined = True
        return self

    def _meet(self, store: Any) -> list[list[str]]:
        """The names of the devices of every rank."""
        store.set(f"devices/{self.rank}", json.dumps([_name(device) for device in self.devices]))
        return [json.loads(store.get(f"devices/{rank}")) for rank in range(self.size)]

    def __exit__(self, kind: object, *_: object) -> None:
        # After an error nccl would wait for the rank that is gone.
        if self._joined and (kind is None or self.backend == "gloo"):
            with suppress(RuntimeError):
                dist.destroy_process_group()

    @property
    def stop(self) -> int:
        return self._stop

    @property
    def seconds(self) -> float:
        return 0.0 if self._seconds is None else self._seconds

    def parts(self, probes: int) -> int:
        if self.share == "probes":
            return 1
        if self.share in ("batch", "own"):
            return self.size
        return next(
            n for n in range(1, self.size + 1) if self.size % n == 0 and self.size // n <= max(probes, 1)
        )

    def check(self, optimizer: Optimizer) -> None:
        if optimizer.backward_passes:
            raise ConfigError(
                f"{type(optimizer).__name__} moves by gradients, which are as large as the model, and {self.size} "
                "processes here share scalars only. Run it in one process, or take a method of forward passes."
            )

    def over(self, look: Looker, optimizer: Optimizer) -> "SharedLook":
        self.check(optimizer)
        if isinstance(look, InPlace):
            raise ConfigError(
                f"The in-place walk does not come back to the bits it left, so {self.size} processes would drift "
                "apart. Use ModuleLook, or one process."
            )
        if not isinstance(look, Look):
            raise ConfigError(f"A {type(look).__name__} is no zo.look.Look, which processes can share.")
        parts = self.parts(optimizer.losses_per_step)
        gather = partial(self.gather, weights=optimizer.weights)
        return SharedLook(look, gather, self.rank, self.size // parts, parts, own=self.share == "own")

    def begin(self, t: int) -> None:
        self._due = self._due or t % self.check_every == 0
        self._step = t
        if self._seconds is None:
            self._seconds = self.first(lambda: self.report()[1])

    def gather(self, numbers: Sequence[float], width: int, *, weights: Weights) -> list[list[float]]:
        """The numbers of all ranks, padded to `width`; flag and clock go with them, and a checksum when due."""
        stop, seconds = self.report()
        halves = (_NONE, _NONE)
        if self._due:
            halves = tuple(float(half) for half in divmod(weights.checksum(), 1 << 32))
        row = [float(self._step), float(stop), seconds, *halves, *numbers]
        row += [0.0] * (_HEAD + width - len(row))
        mine = torch.tensor(row, dtype=torch.float64, device=self._device)
        out = [torch.empty_like(mine) for _ in range(self.size)]
        with self._reaching():
            dist.all_gather(out, mine)
        rows = torch.stack(out).tolist()
        self._compare([row[0] for row in rows], lambda t: f"is at step {t:.0f}")
        if self._due:
            self._compare([tuple(row[3:_HEAD]) for row in rows], lambda _: "holds other weights")
            self.agreed, self._due = self._step, False
        self._stop = self._stop or next((int(row[1]) for row in rows if row[1]), 0)
        self._seconds = rows[0][2]
        return [row[_HEAD:] for row in rows]

    def verify(self, t: int, weights: Weights) -> None:
        self.begin(t)
        self._due = True
        self.gather([], 0, weights=weights)

    def _compare(self, values: Sequence[Any], said: Callable[[Any], str]) -> None:
        if odd := _odd(values):
            since = "from the start" if self.agreed is None else f"after step {self.agreed}"
            raise RanksDiverged(
                f"Step {self._step}: "
                + "; ".join(f"rank {rank} {said(values[rank])}" for rank in odd)
                + f", unlike the majority or rank 0. It came about {since}. Machines of one kind with the same "
                "versions of torch compute the same bits; look for one that differs, or has faulty memory. "
                "The journal is cut to where all agreed, and the same command goes on from there."
            )

    def every(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        with self._reaching():
            dist.all_gather_object(values, value)
        return values

    def first(self, make: Callable[[], T]) -> T:
        box: list[Any] = [None, None]
        failed: BaseException | None = None
        if self.leads:
            try:
                box = [make(), None]
            except Exception as error:  # of whatever kind: the others wait for this rank, and are told
                failed, box = error, [None, _line(error)]
        with self._reaching():
            dist.broadcast_object_list(box, src=0)
        if failed is not None:
            raise failed
        if box[1] is not None:
            raise RankLost(f"Rank 0 ended: {box[1]}")
        return box[0]

    def agree(self, what: Mapping[str, Hashable]) -> None:
        everyone = self.every(dict(what))
        names = [name for name in what if _odd([values.get(name) for values in everyone])]
        if names:
            ranks = sorted({rank for n in names for rank in _odd([values.get(n) for values in everyone])})
            raise RanksDiverged(
                f"{_ranks(ranks)} and the others were not given the same: {', '.join(names)} differ. All processes "
                "need the same files, versions and kinds of device."
            )

    @contextmanager
    def _reaching(self) -> Any:
        """Turns torch's errors of an exchange into one that says what happened."""
        try:
            yield
        except RuntimeError as error:
            raise RankLost(
                f"Rank {self.rank} of {self.size} lost another rank at step {self._step}: {_line(error)}. That rank "
                "ended, with a message of its own, or did not answer in time. The same command goes on from the "
                "last whole step."
            ) from error


def _name(device: int) -> str:
    """A GPU by what no other has, on whatever machine."""
    return f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"


def _backend(wanted: str, everyone: Sequence[Sequence[str]], own: bool) -> str:
    """The backend for ranks with these devices. own: raises ConfigError where two take the same."""
    pairs = shared_devices(everyone)
    if pairs and own:
        named = " and ".join(f"ranks {one} and {other}" for one, other in pairs[:4])
        raise ConfigError(
            f"Processes would share a GPU: {named}. Start as many as there are GPUs, or let the scheduler bind GPUs of "
            "its own to each (srun --gpus-per-task), or put the model on the CPU (model.device=cpu)."
        )
    if wanted != "auto":
        return wanted
    return "nccl" if all(everyone) and not pairs else "gloo"


def _odd(values: Sequence[Hashable]) -> list[int]:
    """The ranks that do not have the commonest value; among equally common ones rank 0's, or the lowest rank's."""
    counts = Counter(values)
    most = max(counts.values())
    usual = next(value for value in values if counts[value] == most)
    return [rank for rank, value in enumerate(values) if value != usual]


def _ranks(ranks: Sequence[int]) -> str:
    return f"Rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _line(error: BaseException) -> str:
    """The first line of a message; torch adds lines about its own source."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
