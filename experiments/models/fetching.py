"""Finds models of the hub in its cache or among converted ones, fetches them, and converts pickles to safetensors.

A run reads safetensors alone. Some repositories, OPT's among them, publish pickles only: `prefetch` reads these
as tensors and nothing else (torch's weights_only, which runs no code) and writes them once below paths.models,
where a run with the same id and revision finds them.
"""

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.models.hub import unreachable
from experiments.rundir.code_places import typed_command
from experiments.rundir.folder import follow_umask
from zo.errors import ConfigError

# What is fetched: weights without pickles, configuration, tokenizer. Never code.
SMALL = ["*.json", "*.model", "*.txt"]
UNWANTED = ["onnx/*", "openvino/*", "original/*", "coreml/*", "*/openvino/*"]
PICKLES = "pytorch_model*.bin"


def converted(name: str, revision: str | None, models: Path) -> Path:
    """Returns the folder of a hub model's converted weights, whether it exists or not."""
    return models / (name.replace("/", "--") + (f"@{revision}" if revision else ""))


def cached(name: str, revision: str | None) -> Path | None:
    """Returns a hub model's snapshot in the hub's cache, or None unless all its weights are there."""
    from huggingface_hub import snapshot_download  # late: only hub models need it
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for weights, index in (
        ("*.safetensors", "model.safetensors.index.json"),
        (PICKLES, "pytorch_model.bin.index.json"),
    ):
        try:
            wanted = [*SMALL, weights]
            folder = Path(
                snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=UNWANTED,
                                  local_files_only=True)
            )  # fmt: skip
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
            continue
        if _complete(folder, weights, index):
            return folder
    return None


def fetch(name: str, revision: str | None, *, pickles: bool) -> Path:
    """Downloads a hub model; returns its snapshot. Raises ConfigError if the hub does not answer or refuses.

    pickles: take these where there are no safetensors; otherwise such a repository is refused.
    """
    why = unreachable()
    if why is not None:
        raise ConfigError(_cannot(name, why))
    from huggingface_hub import HfApi, snapshot_download  # late: only hub models need it

    with _explained(name, revision):
        files = HfApi().list_repo_files(name, revision=revision)
        weights = "*.safetensors"
        if not any(file.endswith(".safetensors") and "/" not in file for file in files):
            ggufs = [file for file in files if file.endswith(".gguf")]
            if ggufs and not any(file.endswith(".bin") for file in files):
                raise ConfigError(
                    f"model.path={name}: this repository has GGUF files alone. Fetch one and give it as model.path: "
                    f"hf download {name} {ggufs[0]}"
                )
            if not pickles:
                raise ConfigError(
                    f"model.path={name}: this repository has no safetensors, and pickles could run code. Convert them "
                    f"once: {typed_command('prefetch')} model.path={name}"
                    + (f" model.revision={revision}" if revision else "")
                )
            weights = PICKLES
        patterns = [*SMALL, weights]
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, ignore_patterns=UNWANTED, etag_timeout=10
            )
        )


def convert(folder: Path, target: Path, source: str) -> Path:
    """Writes the pickles of a folder as safetensors, a shard at a time, and copies the other files.

    The target appears at the end, complete. Raises ConfigError for a pickle that holds anything but tensors.
    """
    from safetensors.torch import save_file  # late, as torch

    shards = sorted(folder.glob(PICKLES))
    unfinished = target.with_name(f"{target.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        weight_map: dict[str, str] = {}
        size = 0
        for number, shard in enumerate(shards, start=1):
            several = len(shards) > 1
            name = f"model-{number:05}-of-{len(shards):05}.safetensors" if several else "model.safetensors"
            tensors = _tensors(shard)
            save_file(tensors, str(unfinished / name), metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, name)
            size += sum(tensor.nbytes for tensor in tensors.values())
        if len(shards) > 1:
            index = {"metadata": {"total_size": size}, "weight_map": weight_map}
            (unfinished / "model.safetensors.index.json").write_text(
                json.dumps(index, indent=1), encoding="utf-8"
            )
        for path in folder.iterdir():
            if path.suffix in (".json", ".model", ".txt") and not path.name.startswith("pytorch_model"):
                shutil.copyfile(path, unfinished / path.name)
        (unfinished / "source.json").write_text(
            json.dumps({"source": source, "snapshot": folder.name}), encoding="utf-8"
        )
        follow_umask(unfinished)
        if not target.is_dir():  # another process may have been faster
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _tensors(shard: Path) -> dict[str, Any]:
    """Returns the tensors of a pickle, each with its own memory, as safetensors requires."""
    import torch  # late: finding a model needs none

    try:
        try:
            loaded = torch.load(shard, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # written by an old torch, which cannot be mapped
            loaded = torch.load(shard, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{shard} cannot be read as tensors alone, so it is not read: {first}") from error
    wrong = [name for name, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ConfigError(f"{shard} holds {wrong[0]}, which is no tensor: it is no model's weights.")
    copied, seen = {}, set()
    for name, tensor in loaded.items():
        memory = tensor.untyped_storage().data_ptr()
        copied[name] = tensor.clone() if memory in seen else tensor.contiguous()
        seen.add(memory)
    return copied


def _complete(folder: Path, weights: str, index: str) -> bool:
    """Returns True if a snapshot has its configuration and every weight file that its index names."""
    if not (folder / "config.json").is_file():
        return False
    if (folder / index).is_file():
        names: Sequence[str] = list(
            json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
        )
        return all((folder / name).is_file() for name in names)
    return any(folder.glob(weights))


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Returns the hub's answer as a sentence that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise ConfigError(
            f"model.path={name}: the hub gives this model only to those who accepted its licence. Accept it on "
            f"https://huggingface.co/{name} and log in on this machine: hf auth login, or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"model.revision={revision}: {name} has no such branch, tag or commit.") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"model.path={name}: there is no such folder here and no such model on the hub, or it is private and "
            f"needs a login: hf auth login, or set HF_TOKEN."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(_cannot(name, str(error).strip().splitlines()[0])) from error


def _cannot(name: str, why: str) -> str:
    return (
        f"model.path={name} is no folder here, is not in the hub's cache, and cannot be fetched: {why}. "
        f"Give the folder of a model, or fetch it once where there is a network: "
        f"{typed_command('prefetch')} model.path={name}"
    )
