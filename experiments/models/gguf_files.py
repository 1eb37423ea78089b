"""Converts GGUF files to models: dequantised once to float32 and written as a folder of safetensors.

transformers reads the file (architectures and block types are those it knows), the package `gguf` unpacks its blocks.
The folder lies below paths.models, named by the file and its digest, so a changed file is converted anew. Runs load
that folder and know nothing of GGUF: their hash holds its contents.
"""

import functools
import hashlib
import importlib.util
import io
import json
import re
import shutil
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from experiments.rundir.code_places import install
from experiments.rundir.folder import follow_umask
from zo.errors import ConfigError

MAGIC = b"GGUF"
INSTALL = install("gguf")
PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf")  # of a model that is split over several files
# Scripts, digits, spaces and case: a tokenizer that was saved must cut them as the one in the file does.
SAMPLE = "The year 1984, in 3 parts:\n  naïve café — Straße, 東京 and Ωmega;\tdon't  stop... <b>OK?</b>"


def gguf_at(path: Path) -> Path | None:
    """Returns the GGUF file that a path means: itself, or the only one of a folder without safetensors; else None.

    Raises ConfigError for a file that is not there, and for a folder with several.
    """
    if path.suffix == ".gguf" and not path.is_dir():
        if not path.is_file():
            raise ConfigError(f"model.path={path}: there is no such GGUF file.")
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ConfigError(f"{path} has several GGUF files ({names}). Name one: model.path={files[0]}")
    return files[0] if files else None


def converted_folder(file: Path, models: Path) -> Path:
    """Returns the folder of a GGUF file's converted weights, whether it is there or not."""
    stat = file.stat()
    return models / f"{file.stem}-{_digest(file.resolve(), stat.st_size, stat.st_mtime_ns)[:16]}"


@functools.cache
def _digest(file: Path, size: int, changed: int) -> str:
    """Returns the SHA-256 (hex) of a file; cached by its size and modification time."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_convertible(file: Path) -> None:
    """Raises ConfigError for a file that is no GGUF or a part of one, and where the package `gguf` is absent."""
    with file.open("rb") as stream:
        if stream.read(4) != MAGIC:
            raise ConfigError(f"{file} does not begin as a GGUF file does. It is damaged, or another format.")
    if (part := PART.search(file.name)) and int(part[1]) > 1:
        raise ConfigError(
            f"{file} is one of {int(part[1])} parts, which transformers does not read. Merge them first with "
            f"llama.cpp: llama-gguf-split --merge"
        )
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            f"{file} is a GGUF file; to unpack it once, the Python package gguf is needed. Install it: {INSTALL}"
        )


def convert_gguf(file: Path, models: Path) -> Path:
    """Writes a GGUF file's model, dequantised to float32, and its tokenizer as a folder; returns the folder.

    The folder appears at the end, complete. Of two processes one converts and the other waits. Raises ConfigError for
    what transformers cannot read in full.
    """
    from filelock import FileLock  # late: only this needs it

    target = converted_folder(file, models)
    check_convertible(file)
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f".{target.name}.lock"):
            if not target.is_dir():
                if sys.stderr.isatty():
                    sys.stderr.write(
                        f"Unpacking {file.name} into {target}, once: about 30 s for 135 M parameters.\n"
                    )
                unfinished = target.with_name(f"{target.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
                unfinished.mkdir()
                try:
                    _write(file, unfinished)
                    follow_umask(unfinished)
                    unfinished.rename(target)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be converted into {target}: {error}. Make room there, or set paths.models to a folder "
            f"that can be written."
        ) from error
    return target


def _write(file: Path, folder: Path) -> None:
    """Writes the model, the tokenizer and their origin to a folder."""
    from experiments.models.hushed import quiet  # late, as below

    model, tokenizer = _read(file)
    _check_whole(file, model)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    _check_tokenizer(file, tokenizer, folder)
    _drop(folder / "config.json", "transformers_version")  # or every version would make other hashes
    stat = file.stat()
    source = {"source": file.name, "sha256": _digest(file.resolve(), stat.st_size, stat.st_mtime_ns)}
    (folder / "source.json").write_text(json.dumps(source), encoding="utf-8")


def _read(file: Path) -> tuple[Any, Any]:
    """Returns the model in float32 and the tokenizer, as transformers reads them from a GGUF file."""
    # late: finding a model needs no transformers
    from experiments.models.hushed import BROKEN, first_line, quiet

    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        with quiet(), redirect_stderr(io.StringIO()):  # tqdm's bar, which quiet does not reach
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
            auto: Any = AutoModelForCausalLM  # its types know no loading info
            model, report = auto.from_pretrained(
                file.parent,
                dtype="float32",
                quantization_config=GgufConfig(dequantize=True),  # else blocks stay packed where kernels are
                output_loading_info=True,
                **where,
            )
    except ImportError as error:
        raise ConfigError(f"{file} cannot be read: {first_line(error)} Install: {INSTALL}") from error
    except (*BROKEN, RuntimeError) as error:
        raise ConfigError(
            f"{file} cannot be read by transformers: {first_line(error)} Take the model as safetensors, or a GGUF of "
            f"an architecture and block type that transformers reads (F32, F16, BF16, Q4 to Q8 and K blocks)."
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"{file} lacks {len(missing)} weights of {type(model).__name__}, such as {missing[0]}."
        )
    return model, tokenizer


def _check_whole(file: Path, model: Any) -> None:
    """Raises ConfigError if the model lacks a tensor of the file: transformers leaves it out silently."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    written = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    loaded = sum(parameter.numel() for parameter in model.parameters())  # tied ones once, as in the file
    if sum(written.values()) != loaded:
        factors = sorted(name for name in written if name.startswith("rope_"))
        hint = f" It has {', '.join(factors)}, factors of its positions." if factors else ""
        raise ConfigError(
            f"{file} holds {sum(written.values()):,} numbers, transformers takes {loaded:,} of them.{hint} The rest "
            f"would be lost: take the model as safetensors."
        )
    scaling = next((f for name, f in reader.fields.items() if name.endswith(".rope.scaling.type")), None)
    kind = "none" if scaling is None else scaling.contents()
    if kind != "none" and (model.config.rope_parameters or {}).get("rope_type") == "default":
        raise ConfigError(
            f"{file} stretches its positions (rope.scaling.type = {kind}), which transformers does not read from GGUF. "
            f"Take the model as safetensors."
        )


def _check_tokenizer(file: Path, tokenizer: Any, folder: Path) -> None:
    """Raises ConfigError if the saved tokenizer splits text differently from the file's."""
    from experiments.models.row_tokens import tokenizer_of

    saved = tokenizer_of(folder)
    if saved(SAMPLE)["input_ids"] != tokenizer(SAMPLE)["input_ids"] or len(saved) != len(tokenizer):
        raise ConfigError(
            f"{file}: its tokenizer, saved and read again by transformers, cuts text otherwise. Take the model as "
            f"safetensors, with its own tokenizer."
        )


def _drop(path: Path, key: str) -> None:
    """Removes a key from a JSON file."""
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop(key, None)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
