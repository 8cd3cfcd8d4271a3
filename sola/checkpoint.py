"""Checkpoints and training state, saved atomically and loaded without running foreign code."""

import contextlib
import dataclasses
import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sola.config import Config
from sola.metrics import best_evaluation, gain, read_records, to_line
from sola.runtime import SolaError

KEPT_STATES = 2
STATE_KEYS = {"epoch", "identity", "model", "optimiser"}


class CheckpointError(SolaError):
    """A checkpoint that is missing, damaged or does not fit; the message names it."""


class DamagedError(CheckpointError):
    """A checkpoint that was read and is not one."""


def write_atomically(path: str | Path, *parts: bytes | memoryview) -> None:
    """Write a file, with its folder, so that it is seen whole or not at all, also after a crash.

    The temporary file lies in the same folder under a hidden name ending in .tmp. Raises
    SolaError, naming the file and its size, when it cannot be written; an earlier file then stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # makes the rename survive a power failure
        os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        size = sum(map(len, parts))
        raise SolaError(f"{path}: cannot write its {size} bytes: {error.strerror}") from error


def clear_temporary(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def save(path: str | Path, content: dict[str, Any]) -> None:
    """torch.save, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """np.save, atomically, of an array in C order."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    write_atomically(path, header.getbuffer(), array.reshape(-1).view(np.uint8).data)


def load(path: str | Path) -> Any:
    """torch.load of tensors and plain values only, onto the CPU."""
    try:
        with open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    except Exception as error:  # whatever a damaged file makes of the reader
        raise DamagedError(f"{path}: damaged, or not a checkpoint") from error


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """A state_dict of finite float tensors, e.g. <exp_name>_<epoch>.pt."""
    weights = load(path)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.is_floating_point()
        for name, value in weights.items()
    ):
        raise CheckpointError(f"{path}: not a state_dict of weights")
    for name, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values")
    return weights


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Save the training state as state_<epoch>.pt; only the newest ones are kept."""
    save(folder / f"state_{state['epoch']}.pt", state)
    for epoch in _numbers(folder, "state_")[:-KEPT_STATES]:
        (folder / f"state_{epoch}.pt").unlink()


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest training state of a run, or None without any; damaged ones are set aside.

    Raises CheckpointError for one that is there but cannot be read: it may be good.
    """
    for epoch in reversed(_numbers(folder, "state_")):
        path = folder / f"state_{epoch}.pt"
        with contextlib.suppress(DamagedError):
            state = load(path)
            if isinstance(state, dict) and state.keys() == STATE_KEYS:
                return state
        path.rename(path.with_suffix(".damaged"))
        print(f"warning: {path} is damaged, set aside; the state before it is used")
    return None


def saved_epochs(config: Config) -> list[int]:
    """Epochs whose checkpoint exists, ascending."""
    return _numbers(config.run_folder, f"{config.exp_name}_")


def _numbers(folder: Path, prefix: str) -> list[int]:
    """The numbers N of files <prefix>N.pt, ascending."""
    stems = [path.stem for path in folder.glob("*.pt") if path.stem.startswith(prefix)]
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
    epoch = int(load_model) if load_model.isdecimal() else -1
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


def open_run(config: Config, lengths: dict[str, int], *, restart: bool) -> dict[str, Any] | None:
    """Make the run's folder ready; the training state to continue from, or None to begin.

    lengths: video -> T of the training split. restart sets an earlier run aside under a dated
    name. Raises CheckpointError when the folder holds another run than this one.
    """
    folder = config.run_folder
    if restart:
        _set_aside(folder)
        _set_aside(config.picture_folder)
    clear_temporary(folder)
    clear_temporary(config.picture_folder)
    state = load_state(folder)
    if state is not None:
        _check_same_run(state, config, lengths)
    elif saved_epochs(config):
        raise CheckpointError(
            f"{folder}: holds checkpoints but no training state to continue from; "
            "--restart sets them aside, another exp_name leaves them"
        )
    last_epoch = state["epoch"] if state else -1  # records of later epochs come again
    kept = [record for record in read_records(config.metrics_file) if record["epoch"] <= last_epoch]
    write_atomically(config.metrics_file, "".join(map(to_line, kept)).encode())
    write_atomically(folder / "config.yaml", config.to_yaml().encode())
    return state


def run_identity(config: Config, lengths: dict[str, int]) -> dict[str, Any]:
    """What must be equal for a run to be continued, as saved in its training state."""
    settings = dataclasses.asdict(config)
    listing = "".join(f"{video}\t{length}\n" for video, length in sorted(lengths.items()))
    return {
        "config": {key: settings[key] for key in settings if not _may_differ(key)},
        "videos": len(lengths),
        "snippets": sum(lengths.values()),
        "listing": hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest(),
    }


def _may_differ(key: str) -> bool:
    single = ("epoch", "num_workers", "device", "storage")
    return key in single or key.startswith(("visualizing_", "eval_"))


def _check_same_run(state: dict[str, Any], config: Config, lengths: dict[str, int]) -> None:
    old, new = state["identity"], run_identity(config, lengths)
    differences = [
        f"{key} was {old['config'].get(key)!r}, is {value!r}"
        for key, value in new["config"].items()
        if old["config"].get(key) != value
    ]
    if old["listing"] != new["listing"]:
        differences.append(
            f"the training videos or their T were {old['videos']} with {old['snippets']} snippets, "
            f"are {new['videos']} with {new['snippets']}"
        )
    if state["epoch"] > config.epoch:
        differences.append(f"epoch is {config.epoch}, but {state['epoch']} epochs are done")
    if differences:
        raise CheckpointError(
            f"{config.run_folder}: holds another run ({'; '.join(differences)}); "
            "use another exp_name, or --restart to set it aside"
        )


def _set_aside(folder: Path) -> None:
    if not folder.exists():
        return
    aside = folder.with_name(f"{folder.name}_until_{time.strftime('%Y%m%d-%H%M%S')}")
    while aside.exists():  # two in one second
        aside = aside.with_name(aside.name + "+")
    folder.rename(aside)
    print(f"earlier run set aside as {aside}")
