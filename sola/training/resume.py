"""How far a run has come: its training state on disk, and what must be equal to continue it."""

import contextlib
import dataclasses
import hashlib
import math
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sola.config import Config
from sola.method.weights import (
    CheckpointError,
    DamagedError,
    is_plain_tensor,
    load,
    save,
    saved_epochs,
)
from sola.records import read_records, to_line
from sola.system.files import clear_temporary, write_atomically

KEPT_STATES = 2
STATE_NAME = re.compile(
    r"state_(\d{1,12})-(\d{1,12})\.pt"
)  # epochs complete, steps of the next one
NO_SECONDS = {"seconds": 0.0, "seconds_reading": 0.0, "seconds_drawing": 0.0}
STEP_FIGURES = ("loss", "cosine_mean", "cosine_square")  # cosines off the diagonal

State = dict[str, Any]  # see is_state


def save_state(folder: Path, state: State) -> None:
    """Save a training state as state_<epochs>-<steps>.pt; only the newest ones are kept."""
    save(folder / f"state_{state['epoch']}-{len(state['figures'])}.pt", state)
    for path in state_files(folder)[:-KEPT_STATES]:
        path.unlink()


def load_state(folder: Path) -> State | None:
    """The newest training state of a run, or None without any; damaged ones are set aside.

    Raises CheckpointError for one that is there but cannot be read: it may be good.
    """
    for path in reversed(state_files(folder)):
        with contextlib.suppress(DamagedError):
            state = load(path)
            if isinstance(state, dict) and type(state.get("seconds")) is float:
                state["seconds"] = NO_SECONDS | {"seconds": state["seconds"]}  # an earlier version
            if is_state(state):
                return state
        path.rename(path.with_suffix(".damaged"))
        print(f"warning: {path} is damaged, set aside; the state before it, if any, is used")
    return None


def state_files(folder: Path) -> list[Path]:
    """The training states of a run, oldest first."""
    found = [(STATE_NAME.fullmatch(path.name), path) for path in folder.glob("state_*.pt")]
    numbered = [(int(match[1]), int(match[2]), path) for match, path in found if match]
    return [path for *_, path in sorted(numbered)]


def is_state(state: Any) -> bool:
    """Whether this has the form of a training state; the learner checks what is its own.

    epoch: epochs that are complete. figures: float64 [steps done of the next one, 3]. seconds:
    spent on these, see NO_SECONDS. identity: see run_identity. model, optimiser: of the learner.
    """
    kinds = {"epoch": int, "figures": Tensor, "seconds": dict, "identity": dict}
    return (
        isinstance(state, dict)
        and state.keys() == kinds.keys() | {"model", "optimiser"}
        and all(type(state[key]) is kind for key, kind in kinds.items())
        and state["epoch"] >= 0
        and state["seconds"].keys() == NO_SECONDS.keys()
        and all(type(s) is float and math.isfinite(s) for s in state["seconds"].values())
        and is_plain_tensor(state["figures"])
        and state["figures"].dtype is torch.float64
        and state["figures"].shape[1:] == (len(STEP_FIGURES),)
        and bool(state["figures"].isfinite().all())
        and isinstance(state["identity"].get("config"), dict)
        and all(
            type(value) in (str, int, float, bool)
            for value in (state["identity"] | state["identity"]["config"] | {"config": 0}).values()
        )
    )


def open_run(config: Config, lengths: dict[str, int], *, restart: bool) -> State | None:
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
    differences = _differences(state, config, lengths) if state is not None else []
    if differences and (state["epoch"] or len(state["figures"])):
        raise CheckpointError(
            f"{folder}: holds another run ({'; '.join(differences)}); "
            "use another exp_name, or --restart to set it aside"
        )
    if differences:
        state = None  # nothing is trained yet
    elif state is None and saved_epochs(config):
        raise CheckpointError(
            f"{folder}: holds checkpoints but no training state to continue from; "
            "--restart sets them aside, another exp_name leaves them"
        )
    last_epoch = state["epoch"] if state else -1  # records of later epochs come again
    kept = [record for record in read_records(config.metrics_file) if record["epoch"] <= last_epoch]
    recorded = [record["epoch"] for record in kept if record["record"] == "epoch"]
    if recorded != list(range(1, last_epoch + 1)):
        print(f"warning: {config.metrics_file} lacks records of epochs before {last_epoch + 1}")
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
    single = ("epoch", "num_workers", "device", "storage", "on_bad_file")
    return key in single or key.startswith(("visualizing_", "eval_"))


def _differences(state: State, config: Config, lengths: dict[str, int]) -> list[str]:
    """What differs between the run of a state and this one, of what may not."""
    old, new = state["identity"], run_identity(config, lengths)
    differences = [
        f"{key} was {old['config'].get(key)!r:.60}, is {value!r}"
        for key, value in new["config"].items()
        if old["config"].get(key) != value
    ]
    if old.get("listing") != new["listing"]:
        differences.append(
            f"the training videos or their T were {old.get('videos')} with {old.get('snippets')} "
            f"snippets, are {new['videos']} with {new['snippets']}"
        )
    done = state["epoch"] + (1 if len(state["figures"]) else 0)
    if done > config.epoch:
        differences.append(f"epoch is {config.epoch}, but epoch {done} has begun")
    return differences


def _set_aside(folder: Path) -> None:
    if not folder.exists():
        return
    aside = folder.with_name(f"{folder.name}_until_{time.strftime('%Y%m%d-%H%M%S')}")
    while aside.exists():  # two in one second
        aside = aside.with_name(aside.name + "+")
    folder.rename(aside)
    print(f"earlier run set aside as {aside}")
