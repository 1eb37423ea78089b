"""Wheel and sdist of this tree, and an environment in which nothing but the wheel says where zo is."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Zo = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Built:
    """The wheel and the sdist, and what the tree was when they were built: its commit and files."""

    wheel: Path
    sdist: Path
    commit: str
    files: list[str]


def git(*words: str) -> str:
    """What git prints about this tree."""
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    """The wheel, built from the sdist as an index's users get it, and the sdist."""
    pytest.importorskip("build", reason="the package build is not installed (pip install -e '.[dev]')")
    pytest.importorskip(
        "hatchling", reason="the package hatchling is not installed (pip install -e '.[dev]')"
    )
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(out.iterdir())) == 2, "nothing else is left where packages are built"
    # As git has them, new ones too; those that git ignores are nobody else's.
    listed = git("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    files = sorted(name for name in listed if (ROOT / name).is_file())
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")), git("rev-parse", "HEAD").strip(), files)


def environment(folder: Path, *what: str) -> Path:
    """Makes an empty environment, installs `what` with pip, and returns its folder of programs.

    torch and the other packages come from this interpreter's, by a .pth file; those of such a folder are not followed,
    so that zo is found only where it was installed.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = "\n".join(dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib")))
    (folder / "lib" / version / "site-packages" / "others.pth").write_text(places + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    done = subprocess.run(
        [*pip, "--no-build-isolation", *what], capture_output=True, text=True, timeout=600, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin"


def program(programs: Path, cwd: Path) -> Zo:
    """Returns a function that runs `zo` of an environment in a folder and asserts its exit code; None: any."""

    def zo(*words: str, code: int | None = 0, **more: str) -> "subprocess.CompletedProcess[str]":
        outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
        path = f"{programs}{os.pathsep}{outside['PATH']}"
        done = subprocess.run(
            [str(programs / "zo"), *words], cwd=cwd, capture_output=True, text=True, timeout=600,
            env=outside | {"PATH": path, "OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": str(cwd.parent)} | more,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"zo {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done

    return zo


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel."""
    return environment(tmp_path_factory.mktemp("wheel") / "venv", str(built.wheel))


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """An empty folder but for a package called experiments, which a research repository may well have."""
    folder = tmp_path / "mine"
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "__init__.py").write_text(
        "raise SystemExit('the code of the working folder')\n"
    )
    return folder
