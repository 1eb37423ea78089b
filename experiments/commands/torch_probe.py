"""Prints what torch finds on this machine and whether the kernels work, as JSON; zo doctor runs it as a process.

A process, because a damaged installation of torch or a driver may end it. It goes on after the doctor has given up on
it: the first use of the native kernels compiles them, which takes longer, and is kept.
"""

import json
import sys
import time
import warnings
from typing import Any

import torch
import torch.cuda.nccl
import torch.distributed

from zo.errors import ConfigError, ZOWarning
from zo.kernels import best
from zo.kernels.trial import left_to_eager, self_check


def probe() -> dict[str, Any]:
    """Returns torch's build and its devices, each with the kernels that are used and what is wrong with them."""
    nccl = torch.cuda.is_available() and torch.distributed.is_nccl_available()
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if nccl else None,
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "devices": [_device(device) for device in devices()],
    }


def devices() -> list[torch.device]:
    """Returns the CPU, every CUDA (or ROCm) device, and Apple's, if torch has them."""
    found = [torch.device("cpu")]
    found += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return found + ([torch.device("mps")] if torch.backends.mps.is_available() else [])


def _device(device: torch.device) -> dict[str, Any]:
    began = time.monotonic()
    facts: dict[str, Any] = {"device": str(device), "name": None, "free": None, "total": None}
    if device.type == "cuda":
        facts["name"] = torch.cuda.get_device_name(device)
        facts["free"], facts["total"] = torch.cuda.mem_get_info(device)
    try:
        form = best(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZOWarning)  # of the operations that are listed here
            differs = self_check(form, device)
        left = [f"{row['operation']} of {row['stream']} in {row['dtype']}: {row['because']}"
                for row in left_to_eager() if row["device"] == str(device)]  # fmt: skip
        facts |= {
            "kernels": form.name,
            "wrong": [*left, *(f"{name}: {why}" for name, why in differs.items())],
        }
    except ConfigError as error:
        facts |= {"kernels": None, "wrong": [str(error)]}
    return facts | {"seconds": round(time.monotonic() - began, 2)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
