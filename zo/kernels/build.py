"""The library of native.cpp, compiled on first use by the machine's own g++ (or $CXX), in some seconds.

It is kept under $ZO_CACHE or ~/.cache/zo by the hash of source, options, compiler and processor.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("native.cpp")
_HEADER = Path(__file__).with_name("native_noise.h")
_OPTIONS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fPIC")


@functools.cache
def load(portable: bool) -> tuple[ctypes.CDLL | None, bool, str]:
    """The compiled functions, whether it has threads, and a sentence when there is none."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or ""
    if not shutil.which(compiler):
        return None, False, "There is no C++ compiler: g++ is not on the PATH and CXX names none."
    runtime = _openmp()
    options = [*_OPTIONS, *(["-DZO_PORTABLE"] if portable else []), *(["-fopenmp"] if runtime else [])]
    try:
        path = _build(compiler, options, runtime)
        library = ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        return None, False, f"{compiler} cannot compile {_SOURCE.name}: {error.stderr.strip()[-500:]}"
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:  # RuntimeError: a user without a home
        return None, False, f"The compiled form of {_SOURCE.name} cannot be made or loaded: {error}"
    library.zo_apply.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.zo_entries.argtypes = [ctypes.c_char_p] * 3
    library.zo_moments.argtypes = [ctypes.c_char_p] * 3
    library.zo_formula.argtypes = [ctypes.c_char_p] * 3
    library.zo_noise.argtypes = [ctypes.c_int, *[ctypes.c_uint64] * 2, *[ctypes.c_int64] * 2, ctypes.c_void_p]
    return library, runtime is not None, ""


def _openmp() -> Path | None:
    """The libgomp that torch itself loads: a second one in the process would fight it for the cores."""
    folder = Path(torch.__file__).parent
    found = sorted([*folder.glob("lib/libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")])
    return found[0] if found else None


def _build(compiler: str, options: list[str], runtime: Path | None) -> Path:
    """The shared library, from the cache or compiled into it; complete whenever it is there at all."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    facts = [
        _HEADER.read_text(encoding="utf-8"),
        _SOURCE.read_text(encoding="utf-8"),
        *options,
        version,
        _processor(),
        str(runtime),
    ]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("ZO_CACHE") or Path.home() / ".cache" / "zo")
    path = folder / f"native-{digest}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        objects, library = Path(scratch, "native.o"), Path(scratch, "native.so")
        # Compiled with -fopenmp but linked without it, so that the library asks for torch's runtime alone.
        link = [] if runtime is None else [str(runtime)]
        for command in (
            [compiler, *options, "-w", "-c", str(_SOURCE), "-o", str(objects)],
            [compiler, "-shared", str(objects), "-o", str(library), *link],
        ):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        os.replace(library, path)
    return path


def _processor() -> str:
    """Returns the properties of the processor that -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))
