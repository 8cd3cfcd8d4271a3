"""Checkpoints and training state, saved atomically and loaded without running foreign code."""

import dataclasses
import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sola.config import Config
from sola.metrics import best_evaluation, evaluations, read_records
from sola.runtime import SolaError

KEPT_STATES = 2


class CheckpointError(SolaError):
    """A checkpoint that is missing, damaged or does not fit; the message names it."""


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
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        size = sum(memoryview(part).nbytes for part in parts) / 1e6
        raise SolaError(f"{path}: cannot write {size:.1f} MB: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_temporary(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def save(path: str | Path, content: dict[str, Any]) -> None:
    """torch.save, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: str | Path) -> Any:
    """torch.load of tensors and plain values only, onto the CPU."""
    with open(path, "rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes of the reader
            raise CheckpointError(f"{path}: damaged, or not a checkpoint") from error


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
    """The newest training state of a run, or None when there is none."""
    epochs = _numbers(folder, "state_")
    return load(folder / f"state_{epochs[-1]}.pt") if epochs else None


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
    there = f"saved epochs in {config.run_folder}: {', '.join(map(str, epochs)) or 'none'}"
    epoch = int(load_model) if load_model.isdecimal() else None
    if load_model == "best":
        records = read_records(config.metrics_file)
        best = best_evaluation(record for record in records if record["epoch"] in epochs)
        if best is None:
            raise CheckpointError(
                f"--load_model=best: no linear probe to choose by; try last ({there})"
            )
        epoch = best["epoch"]
        untouched = next((r for r in evaluations(records) if r["epoch"] == 0), best)
        if untouched["accuracy"] > best["accuracy"]:
            print(
                f"note: the untouched features scored higher than epoch {epoch}, the best trained"
            )
    elif load_model == "last" and epochs:
        epoch = epochs[-1]
    elif epoch == 0:
        return f"{config.exp_name}_0", None
    if epoch not in epochs:
        raise CheckpointError(
            f"--load_model={load_model}: not EPOCH, best, last, 0 or FILE.pt; {there}"
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
    state = load_state(folder)
    if state is not None:
        _check_same_run(state, config, lengths)
    elif saved_epochs(config):
        raise CheckpointError(
            f"{folder}: holds checkpoints but no training state to continue from; "
            "--restart sets them aside, another exp_name leaves them"
        )
    keep_records(config.metrics_file, last_epoch=state["epoch"] if state else -1)
    write_atomically(folder / "config.yaml", config.to_yaml().encode())
    return state


def keep_records(path: Path, last_epoch: int) -> None:
    """Drop the records of epochs that the training state does not hold; they come again."""
    kept = [record for record in read_records(path) if record["epoch"] <= last_epoch]
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept).encode())


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
    return key in ("epoch", "num_workers", "device") or key.startswith(("visualizing_", "eval_"))


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
    if folder.exists():
        aside = folder.with_name(f"{folder.name}_until_{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        print(f"earlier run set aside as {aside}")
