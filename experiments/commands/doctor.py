"""Checks in ten seconds what zo finds on this machine: zo doctor; an issue report begins with it.

It checks versions, devices and the kernels' results, memory, disk, compilers, the hub and W&B, SLURM and nccl.
"""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psutil
from packaging.requirements import Requirement

from experiments.commands.arguments import number_of
from experiments.config import own_files
from experiments.rundir.code_places import ROOT, install
from experiments.rundir.provenance import source
from zo.fields import Positive
from zo.version import DISTRIBUTION, version

SECONDS = 10.0  # for everything
REACH = 4.0  # for an answer over the network
GIB = 2**30
LOW = 5 * GIB  # of a disk's free space, below which a fetched model may not fit
SCHEDULER = ("sbatch", "srun", "squeue", "scontrol", "scancel")


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    command = commands.add_parser("doctor", help="what zo finds on this machine, and what is wrong with it")
    command.add_argument("--json", action="store_true", help="the same as JSON")
    command.add_argument(
        "--seconds",
        type=number_of(Positive),
        default=SECONDS,
        metavar="S",
        help=f"time limit; default {SECONDS:g}",
    )


def perform(seconds: float, as_json: bool) -> int:
    """Prints what was found; 0 nothing is wrong, 1 something is."""
    found = examine(seconds)
    sys.stdout.write((json.dumps(found, indent=1) if as_json else text(found)) + "\n")
    return int(bool(found["problems"]))


def examine(seconds: float) -> dict[str, Any]:
    """Returns what is found, and `problems`, a sentence for each thing that is wrong."""
    began = time.monotonic()
    parts: dict[str, Callable[[], Any]] = {
        "torch": lambda: _torch(seconds),
        "hub": lambda: _hub(min(REACH, seconds)),
        "wandb": lambda: _wandb(min(REACH, seconds)),
        "compilers": lambda: {name: _first_line([name, "--version"], REACH) for name in _compilers()},
        "slurm": _slurm,
    }
    code = source(ROOT)
    found: dict[str, Any] = {
        "zo": {"version": version(), "commit": code["commit"], "dirty": code["dirty"], "code": str(ROOT)},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "system": platform.platform(),
        "packages": packages(),
        "own configuration": str(own_files.own_folder()[0]) if own_files.own_folders() else None,
        "memory": _memory(),
        "disk": _disk(),
    }
    with ThreadPoolExecutor(len(parts)) as threads:
        waiting = {name: threads.submit(part) for name, part in parts.items()}
        found |= {name: future.result() for name, future in waiting.items()}
    return found | {"problems": list(_problems(found)), "seconds": round(time.monotonic() - began, 1)}


def packages() -> dict[str, dict[str, Any]]:
    """Returns each package that the distribution names: the versions it takes, the one that is here, whether that fits.

    Packages of an extra that is not installed count as no problem, but for those of `experiments`.
    """
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        needed = Requirement(line)
        extra = next(iter(re.findall(r"extra == ['\"](\w+)['\"]", line)), None)
        if needed.name == DISTRIBUTION or extra == "dev" or needed.name in found:
            continue
        if needed.marker is not None and not needed.marker.evaluate({"extra": extra or ""}):
            continue
        try:
            here = version_of(needed.name)
        except PackageNotFoundError:
            here = None
        fits = here is not None and needed.specifier.contains(here, prereleases=True)
        found[needed.name] = {
            "takes": str(needed.specifier) or "any",
            "here": here,
            "fits": fits,
            "extra": extra,
        }
    return found


def _torch(seconds: float) -> dict[str, Any]:
    """Returns what experiments.commands.torch_probe prints, or an `error`."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "experiments.commands.torch_probe"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":")},
    )  # fmt: skip
    try:
        out, wrong = process.communicate(timeout=max(1.0, seconds - 0.5))
    except subprocess.TimeoutExpired:
        what = f"torch and the kernels were not ready in {seconds:g} s. Kernels are compiled at their first use, and "
        return {"error": what + "that still goes on. Run this again in a minute, or with --seconds 60."}
    if process.returncode:
        return {"error": (wrong.strip().splitlines() or [f"it ended with code {process.returncode}"])[-1]}
    return json.loads(out.strip().splitlines()[-1])


def _hub(seconds: float) -> dict[str, Any]:
    if importlib.util.find_spec("huggingface_hub") is None:
        return {"state": "huggingface_hub is not installed"}
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return {"state": "not asked: HF_HUB_OFFLINE is set"}
    return _reached(constants.ENDPOINT, seconds)


def _wandb(seconds: float) -> dict[str, Any]:
    if importlib.util.find_spec("wandb") is None:
        return {"state": "wandb is not installed"}
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return {"state": f"not asked: WANDB_MODE={mode}"}
    import wandb

    return _reached(wandb.Settings().base_url, seconds)


def _reached(url: str, seconds: float) -> dict[str, Any]:
    """Returns whether a server answers; any answer counts, since nothing is asked of it."""
    began = time.monotonic()
    try:
        urlopen(Request(url, method="HEAD"), timeout=seconds).close()
    except HTTPError:
        pass
    except (URLError, OSError, ValueError) as error:
        return {"url": url, "state": f"not reached: {getattr(error, 'reason', error)}"}
    return {"url": url, "state": "reached", "seconds": round(time.monotonic() - began, 2)}


def _compilers() -> list[str]:
    return list(dict.fromkeys([os.environ.get("CXX") or "g++", "nvcc"]))


def _slurm() -> dict[str, Any] | None:
    """Returns SLURM's version and the programs that are missing; None where there is none."""
    if shutil.which("sbatch") is None:
        return None
    return {
        "version": _first_line(["sbatch", "--version"], REACH),
        "partitions": _first_line(["sinfo", "--noheader", "--format", "%P %a %D nodes"], REACH),
        "lacking": [name for name in SCHEDULER if shutil.which(name) is None],
        "submitit": importlib.util.find_spec("submitit") is not None,
    }


def _first_line(command: Sequence[str], seconds: float) -> str | None:
    """Returns the first line that a program prints, or None if it is not there or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), None)


def _memory() -> dict[str, Any]:
    """Returns bytes of memory and the limit of this process's control group, and the cores it may use."""
    memory, limit = psutil.virtual_memory(), None
    with suppress(OSError, ValueError):  # "max" is no number
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"total": memory.total, "available": memory.available, "limit": limit, "cores": cores}


def _disk() -> dict[str, Any]:
    """Returns free bytes where runs are written, and where the hub's files are kept."""
    places = {"here": Path.cwd()}
    with suppress(ImportError):
        from huggingface_hub import constants

        places["hub's files"] = Path(constants.HF_HUB_CACHE)
    found = {}
    for name, place in places.items():
        there = next(path for path in [place, *place.parents] if path.is_dir())
        found[name] = {
            "path": str(place),
            "free": shutil.disk_usage(there).free,
            "writable": os.access(there, os.W_OK),
        }
    return found


def _problems(found: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each thing that keeps a run from working, or makes it slow."""
    problems = []
    for name, package in found["packages"].items():
        if package["here"] is not None and not package["fits"]:
            problems.append(f"{name} {package['here']} is here, and zo takes {package['takes']}.")
        if package["here"] is None and package["extra"] in (None, "experiments"):
            problems.append(f"{name} is not installed: {install('experiments')}")
    if "error" in found["torch"]:
        problems.append(f"torch: {found['torch']['error']}")
    for device in found["torch"].get("devices", []):
        problems += [f"kernels on {device['device']}: {why}" for why in device["wrong"]]
    if not any(found["compilers"].values()):
        problems.append("There is no C++ compiler, so noise on a CPU is made by torch, which is slower.")
    for name, disk in found["disk"].items():
        if not disk["writable"]:
            problems.append(f"disk ({name}): {disk['path']} cannot be written.")
        elif disk["free"] < LOW:
            problems.append(f"disk ({name}): {disk['path']} has {disk['free'] / GIB:.1f} GiB free.")
    if found["slurm"] and (lacking := found["slurm"]["lacking"]):
        problems.append(f"SLURM: {', '.join(lacking)} not found on PATH.")
    if found["slurm"] and not found["slurm"]["submitit"]:
        problems.append(f"SLURM: launcher=slurm needs submitit: {install('slurm')}")
    return problems


def text(found: Mapping[str, Any]) -> str:
    """Returns what was found as lines, problems last."""
    zo, python, memory = found["zo"], found["python"], found["memory"]
    commit = f", commit {zo['commit'][:12]}" if zo["commit"] else ""
    limit = f", limited to {memory['limit'] / GIB:.1f}" if memory["limit"] else ""
    rows = [
        ("zo", f"{zo['version']}{commit}{' with changes' if zo['dirty'] else ''}, {zo['code']}"),
        ("Python", f"{python['version']}, {python['executable']}"),
        ("system", found["system"]),
        ("packages", ", ".join(f"{name} {p['here']}" for name, p in found["packages"].items() if p["here"]) or "?"),
        ("memory", f"{memory['available'] / GIB:.1f} of {memory['total'] / GIB:.1f} GiB available{limit}; "
                   f"{memory['cores']} cores"),
        *((f"disk, {name}", f"{d['free'] / GIB:.1f} GiB free, {d['path']}") for name, d in found["disk"].items()),
        *((name, line or "not found") for name, line in found["compilers"].items()),
        *_torch_rows(found["torch"]),
        *((name, " ".join([found[name].get("url", ""), found[name]["state"]]).strip()) for name in ("hub", "wandb")),
        ("SLURM", _slurm_row(found["slurm"])),
    ]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    problems = [f"! {problem}" for problem in found["problems"]] or ["Nothing is wrong."]
    return "\n".join([*(f"{name:<{width}}  {words}" for name, words in rows), "", *problems])


def _torch_rows(torch: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "error" in torch:
        return [("torch", "not known")]
    build = ", ".join(f"{name} {torch[name]}" for name in ("cuda", "hip", "nccl") if torch[name])
    rows = [("torch", f"{torch['torch']}, {build or 'no CUDA'}, {torch['threads']} threads")]
    for device in torch["devices"]:
        memory = (
            f"{device['free'] / GIB:.1f} of {device['total'] / GIB:.1f} GiB free, " if device["total"] else ""
        )
        name = f"{device['name']}, " if device["name"] else ""
        agreed = "agree with torch's" if not device["wrong"] else "differ, see below"
        rows.append((device["device"], f"{name}{memory}kernels {device['kernels']}: {agreed}"))
    return rows


def _slurm_row(slurm: Mapping[str, Any] | None) -> str:
    return (
        "none here"
        if slurm is None
        else f"{slurm['version'] or 'version not known'}; {slurm['partitions'] or 'no partition answers'}"
    )
