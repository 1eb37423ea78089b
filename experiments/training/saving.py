"""Saves a trained model as a Hugging Face or PEFT folder, safetensors only, completely or not at all."""

import os
import shutil
from pathlib import Path
from typing import Any

from experiments.models.head import adapter_of, share_biases
from experiments.models.hushed import quiet
from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from experiments.rundir.folder import follow_umask
from zo.errors import JournalError


def save(loaded: Loaded, folder: Path) -> None:
    """Writes model and tokenizer beside `folder`, and moves them there when they are complete.

    Raises JournalError when they cannot be written, and leaves nothing of them.
    """
    from safetensors import SafetensorError

    unfinished = folder.with_name(f"{folder.name}.unfinished")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        # Without this an adapter asks the hub whether its base model has the same vocabulary.
        options: dict[str, Any] = {"save_embedding_layers": False}
        if adapter_of(loaded.model) is None:
            options = _untied_state(loaded.model)
        with quiet():
            loaded.model.save_pretrained(unfinished, **options)  # type: ignore[operator]  # all that load() gives have it
        loaded.tokenizer.save_pretrained(unfinished)
        follow_umask(unfinished)
        _sync(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        raise JournalError(
            f"The model could not be saved in {folder}: {error}. All steps are recorded: free space or mend the "
            "permissions, then run the same command again, or take save=false."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Forces a folder's files to the disk, because the result that names them is written next."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _untied_state(model: Any) -> dict[str, Any]:
    """Returns the state to save for an untied model whose bias has two names; safetensors refuses shared memory."""
    if _ties(model):
        return {}
    state = model.state_dict()
    return {"state_dict": state | {name: state[name].clone() for name in share_biases(model)}}


def _ties(model: Any) -> bool:
    """Returns True if transformers itself knows which weights of the model are tied."""
    config = getattr(model, "config", None)
    return isinstance(model, MeanPooled) or getattr(config, "tie_word_embeddings", True)
