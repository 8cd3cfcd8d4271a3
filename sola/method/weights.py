"""Checkpoints, saved atomically and loaded without running foreign code."""

import hashlib
import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sola.config import Config
from sola.data.index_files import PLAIN_OPCODES, check_opcodes
from sola.records import best_evaluation, gain, read_records
from sola.system.cli import SolaError, is_out_of_memory
from sola.system.files import refuse_pipe, write_atomically

CHECKPOINT_OPCODES = (
    f"{PLAIN_OPCODES} GLOBAL REDUCE BUILD BINPERSID BINFLOAT NONE NEWTRUE NEWFALSE "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3"
)
CHECKPOINT_CLASSES = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long")),
)


class CheckpointError(SolaError):
    """A checkpoint that is missing, damaged or does not fit; the message names it."""


class DamagedError(CheckpointError):
    """A checkpoint that was read and is not one."""


def save(path: str | Path, content: dict[str, Any]) -> None:
    """torch.save, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: str | Path) -> Any:
    """torch.load of tensors and plain values only, onto the CPU, every byte held to its checksum.

    Raises DamagedError for a file that is damaged or something else, CheckpointError for one that
    cannot be read.
    """
    refuse_pipe(path)
    try:
        with open(path, "rb") as file:
            checked = _checked_archive(file)
        return torch.load(checked, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    except Exception as error:  # whatever a damaged file makes of the readers
        if is_out_of_memory(error):
            raise
        what = "damaged, or not a checkpoint of PyTorch 1.6 or later"
        raise DamagedError(f"{path}: {what} ({error!s:.80})") from error


def _checked_archive(file: BinaryIO) -> BinaryIO:
    """A zip file's entries, checked, in a new one: PyTorch's reader may find others in the file.

    Raises for one that is damaged, expands, or holds a pickle of more than tensors.
    """
    checked = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(checked, "w") as copy:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed")
        if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise ValueError("claims more than it holds")
        if len({entry.filename.lower() for entry in entries}) < len(entries):
            raise ValueError("holds two entries of one name")
        for entry in entries:
            data = archive.read(entry)  # held to its checksum, which PyTorch does not look at
            if entry.filename.lower().endswith("data.pkl"):
                check_opcodes(data, CHECKPOINT_OPCODES, CHECKPOINT_CLASSES)
            copy.writestr(entry.filename, data)
    checked.seek(0)
    return checked


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """A state_dict of finite float tensors, e.g. <exp_name>_<epoch>.pt."""
    weights = load(path)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and is_plain_tensor(value) for name, value in weights.items()
    ):
        raise CheckpointError(f"{path}: not a state_dict of weights")
    for name, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values")
    return weights


def is_plain_tensor(value: Any) -> bool:
    """Whether a loaded value is a float tensor that is no larger than the memory behind it."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.is_floating_point()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def saved_epochs(config: Config) -> list[int]:
    """Epochs whose checkpoint exists, ascending."""
    prefix = f"{config.exp_name}_"
    stems = [path.stem for path in config.run_folder.glob("*.pt") if path.stem.startswith(prefix)]
    numbers = [stem.removeprefix(prefix) for stem in stems]
    return sorted(int(number) for number in numbers if number.isdecimal())


def find_checkpoint(config: Config, load_model: str) -> tuple[str, Path | None]:
    """What --load_model asks for: a name for the output and the checkpoint, None for epoch 0.

    load_model: an epoch, best (highest probe accuracy), last, 0 (features untouched) or a file.
    Raises CheckpointError, saying which epochs are there.
    """
    if load_model.endswith(".pt"):
        return Path(load_model).stem, Path(load_model)
    epochs = saved_epochs(config)
    epoch = int(load_model) if re.fullmatch(r"[0-9]{1,12}", load_model) else -1
    if epoch == 0:
        return f"{config.exp_name}_0", None
    if not epochs:
        raise CheckpointError(f"--load_model={load_model}: no checkpoint in {config.run_folder}")
    there = f"saved epochs in {config.run_folder}: {', '.join(map(str, epochs))}"
    if load_model == "last":
        epoch = epochs[-1]
    elif load_model == "best":
        records = read_records(config.metrics_file)
        best = best_evaluation(record for record in records if record["epoch"] in epochs)
        if best is None:
            raise CheckpointError(f"--load_model=best: no linear probe was run; use last ({there})")
        epoch = best["epoch"]
        if gain(records, best) <= 0:
            print(f"note: epoch {epoch}, the best one, is not above the untouched features (0)")
    elif epoch not in epochs:
        raise CheckpointError(
            f"--load_model={load_model}: must be EPOCH, best, last, 0 or FILE.pt; {there}"
        )
    return f"{config.exp_name}_{epoch}", config.model_file(epoch)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
