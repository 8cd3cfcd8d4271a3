"""Checkpoints: .pt files, saved atomically and loaded without running foreign code."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sola.config import LARGEST
from sola.errors import CheckpointError, DamagedError, parsing
from sola.method.module import SoLaModule
from sola.system.files import read_bytes, write_atomically

WRAPPED, PREFIX = ("state_dict", "model"), "module."  # of Lightning and others; of DataParallel


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
    try:
        data = io.BytesIO(read_bytes(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    what = "damaged, or not a checkpoint of PyTorch 1.6 or later"
    with parsing(path, what, "take another", DamagedError):
        _check_archive(data)
        content = torch.load(data, map_location="cpu", weights_only=True)
        _check_tensors(content)
    return content


def _check_archive(data: io.BytesIO) -> None:
    """Raise for a zip file that is damaged, or that would take more memory than it fills."""
    with zipfile.ZipFile(data) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed")
        if sum(entry.file_size for entry in entries) > len(data.getbuffer()):
            raise ValueError("claims more than it holds")
        if min(entry.header_offset for entry in entries) > 0:
            raise ValueError("holds something else before its entries")  # a second directory, say
        damaged = archive.testzip()  # PyTorch does not look at checksums
        if damaged is not None:
            raise ValueError(f"bad checksum of {damaged}")
    data.seek(0)


def _check_tensors(content: Any) -> None:
    """Raise for a tensor that claims to be larger than the memory behind it."""
    if isinstance(content, Tensor) and content.nbytes > content.untyped_storage().nbytes():
        raise ValueError("a tensor larger than its memory")
    for value in content.values() if isinstance(content, dict) else ():
        _check_tensors(value)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """A state_dict of finite float tensors, e.g. <exp_name>_<epoch>.pt.

    It may lie under a key of WRAPPED, its names may have module. before them, as others save them.
    """
    weights = load(path)
    with parsing(path, "not a state_dict of weights", "take another file", CheckpointError):
        for key in WRAPPED:
            if isinstance(weights.get(key), dict):
                weights = weights[key]
                print(f"{path}: its {key} is taken")
        if weights and all(name.startswith(PREFIX) for name in weights):
            weights = {name.removeprefix(PREFIX): value for name, value in weights.items()}
            print(f"{path}: {PREFIX} before its names is left out")
        weights = dict(weights)
        for name, value in weights.items():
            if not value.is_floating_point() or not value.numel():
                raise ValueError(f"{name} is no tensor of floats")
            if not value.isfinite().all():
                raise CheckpointError(f"{path}: {name} holds NaN or infinite values")
    return weights


def load_module(path: str | Path, dilations: Sequence[int] = (1, 1)) -> SoLaModule:
    """A SoLa module from its checkpoint, this program's or the original's, in eval mode.

    Sizes come from the weights; dilations are not in them and must be those of the training.
    Raises CheckpointError for a file that is missing, damaged or not of a SoLa module.
    """
    weights = load_weights(path)
    with parsing(path, "not a checkpoint of a SoLa module", "take another", CheckpointError):
        hidden_dim, feature_dim, kernel1 = weights["conv_network.0.weight"].shape
        kernel2 = weights["conv_network.2.weight"].shape[2]
        if max(kernel1, kernel2) > LARGEST["kernel_size1"]:
            raise ValueError(f"a kernel of {max(kernel1, kernel2)} snippets")
        module = SoLaModule(feature_dim, hidden_dim, (kernel1, kernel2), dilations)
        module.load_state_dict(weights)
    return module.eval()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
