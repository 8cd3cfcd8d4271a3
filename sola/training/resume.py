"""How far a run has come: its training state on disk, and what must be equal to continue it."""

import contextlib
import dataclasses
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sola.config import Config
from sola.errors import CheckpointError, DamagedError, parsing, shown
from sola.method.matching import Learner
from sola.method.weights import load, save
from sola.records import Record, read_records, saved_epochs, to_line
from sola.system.cli import TIME_OPTIONS
from sola.system.files import clear_temporary, set_aside, write_atomically

KEPT_STATES = 2
STATE_VERSION = 2
STATE_NAME = re.compile(r"state_(\d{1,12})-(\d{1,12})\.pt")  # epochs done, steps of the next
SCALARS_OF_VERSION_1 = ("loss", "cosine_mean", "cosine_square")
MAY_DIFFER = {"epoch", "saving_epoch", "num_workers", "device", "storage", "on_bad_file"}
MAY_DIFFER |= {"synthetic", "data_root", "label_base", "model_save_path", "feature_save_path"}
MAY_DIFFER |= {"annotations", *TIME_OPTIONS}
MAY_DIFFER |= {key for key in vars(Config) if key.startswith(("visualizing_", "eval_"))}


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that the same command needs to go on. Keys that an older state lacks take the defaults.

    epoch: epochs that are complete. steps: done of the next one. scalars: name -> float64 [steps],
    see training_step. seconds: spent on these steps. identity: see run_identity. model and
    optimiser: weights and moments.
    """

    epoch: int = 0
    steps: int = 0
    scalars: dict[str, Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[int, dict[str, Tensor]] = field(default_factory=dict)


class Clock:
    """Where the time since the last epoch's record went: fields of a record -> seconds."""

    def __init__(self, before: dict[str, float]) -> None:
        """before: what was spent before an interruption."""
        self.parts = {"seconds": 0.0, "seconds_reading": 0.0, "seconds_drawing": 0.0} | before
        self.started = time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        total = time.perf_counter() - self.started + self.parts["seconds"]
        return self.parts | {"seconds": total}

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count this as a part of the time: reading or drawing."""
        started = time.perf_counter()
        yield
        self.parts[f"seconds_{part}"] += time.perf_counter() - started

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count this: it has a record of its own."""
        started = time.perf_counter()
        yield
        self.started += time.perf_counter() - started

    def lap(self) -> dict[str, float]:
        """The seconds for a record; they begin again at 0."""
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        self.parts, self.started = dict.fromkeys(self.parts, 0.0), time.perf_counter()
        return seconds


def save_state(folder: Path, state: TrainingState) -> None:
    """Save a training state as state_<epochs>-<steps>.pt; only the newest ones are kept."""
    content = {"version": STATE_VERSION} | vars(state)
    save(folder / f"state_{state.epoch}-{state.steps}.pt", content)
    for path in state_files(folder)[:-KEPT_STATES]:
        path.unlink()


def load_state(folder: Path) -> TrainingState | None:
    """The newest training state of a run, or None without any; damaged ones are set aside.

    Raises CheckpointError for one that is there but cannot be read: it may be good.
    """
    for path in reversed(state_files(folder)):
        with contextlib.suppress(DamagedError):
            return read_state(path)
        path.rename(path.with_suffix(".damaged"))
        print(f"warning: {path} is damaged, set aside; the state before it, if any, is used")
    return None


def read_state(path: Path) -> TrainingState:
    """A training state of this or an earlier version. Raises DamagedError for something else."""
    content = load(path)
    with parsing(path, "damaged, not a training state", "take another", DamagedError):
        version = content.pop("version", 1)
        if version > STATE_VERSION:
            raise CheckpointError(
                f"{path}: was written by a later version of this program; continue with that"
            )
        if isinstance(content.get("seconds"), float):  # as the first ones had it
            content["seconds"] = {"seconds": content["seconds"]}
        if version == 1:
            figures = content.pop("figures")  # float64 [steps, 3]
            scalars = zip(SCALARS_OF_VERSION_1, figures.T.contiguous(), strict=True)
            content |= {"steps": len(figures), "scalars": dict(scalars)}
        state = TrainingState(**content)
        if {type(state.epoch), type(state.steps)} != {int} or min(state.epoch, state.steps) < 0:
            raise ValueError("its epoch or steps")
        for name, values in state.scalars.items():
            if values.shape != (state.steps,) or values.dtype != torch.float64 or values.is_meta:
                raise ValueError(f"its scalar {name}")
        if state.steps and "loss" not in state.scalars:
            raise ValueError("without a loss")
        for name, seconds in state.seconds.items():
            if (type(name), type(seconds)) != (str, float) or not abs(seconds) < 1e12:
                raise ValueError("its seconds")
        identity = state.identity | state.identity["config"]
        del identity["config"]
        if not all(isinstance(value, str | int | float) for value in identity.values()):
            raise ValueError("its identity")
        return state


def state_files(folder: Path) -> list[Path]:
    """The training states of a run, oldest first."""
    found = [(STATE_NAME.fullmatch(path.name), path) for path in folder.glob("state_*.pt")]
    numbered = [(int(match[1]), int(match[2]), path) for match, path in found if match]
    return [path for *_, path in sorted(numbered)]


def restore(learner: Learner, state: TrainingState, folder: Path) -> None:
    """Go on from a state's weights and moments. Raises CheckpointError for another network's."""
    what = "its training state is of another network"
    with parsing(folder, what, "--restart sets it aside", CheckpointError):
        learner.model.load_state_dict(state.model)
        parameters = dict(enumerate(learner.model.parameters()))
        if state.optimiser and state.optimiser.keys() != parameters.keys():
            raise ValueError("other moments")
        for number, moments in state.optimiser.items():
            if moments["step"].numel() != 1:
                raise ValueError("its number of steps")
            for name in ("exp_avg", "exp_avg_sq"):
                if moments[name].shape != parameters[number].shape:
                    raise ValueError(f"{name} of another shape")
                # laid out as the weight is: the fused optimiser goes through memory side by side
                moments[name] = torch.empty_like(parameters[number].data).copy_(moments[name])
        groups = learner.optimiser.state_dict()["param_groups"]
        learner.optimiser.load_state_dict({"state": state.optimiser, "param_groups": groups})


def open_run(
    config: Config, lengths: dict[str, int], *, restart: bool
) -> tuple[TrainingState | None, list[Record]]:
    """Make the run's folder ready: the training state to continue from, or None, and the records.

    lengths: video -> T of the training split. restart sets an earlier run aside under a dated
    name. Raises CheckpointError when the folder holds another run than this one.
    """
    folder = config.run_folder
    if restart:
        set_aside(config.picture_folder)
        set_aside(folder)
    clear_temporary(config.picture_folder)
    state = load_state(folder)
    differences = _differences(state, config, lengths) if state is not None else []
    if differences and (state.epoch or state.steps):
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
    last_epoch = state.epoch if state else -1  # records of later epochs come again
    kept = [record for record in read_records(config.metrics_file) if record["epoch"] <= last_epoch]
    if sum(record["record"] == "epoch" for record in kept) < last_epoch:
        print(f"warning: {config.metrics_file} lacks records of epochs before {last_epoch + 1}")
    write_atomically(config.metrics_file, "".join(map(to_line, kept)).encode())
    write_atomically(folder / "config.yaml", config.to_yaml().encode())
    return state, kept


def run_identity(config: Config, lengths: dict[str, int]) -> dict[str, Any]:
    """What must be equal for a run to be continued, as saved in its training state."""
    settings = dataclasses.asdict(config)
    listing = "".join(f"{video}\t{length}\n" for video, length in sorted(lengths.items()))
    return {
        "config": {key: settings[key] for key in settings if key not in MAY_DIFFER},
        "videos": len(lengths),
        "snippets": sum(lengths.values()),
        "listing": hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest(),
    }


def _differences(state: TrainingState, config: Config, lengths: dict[str, int]) -> list[str]:
    """What differs between the run of a state and this one, of what may not.

    A key that the state lacks was added to the program later: it counts as its default.
    """
    old, new = state.identity, run_identity(config, lengths)
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    differences = []
    for key, value in new["config"].items():
        before = old["config"].get(key, defaults[key])
        if before != value:
            differences.append(f"{key} was {shown(before)}, is {shown(value)}")
    if old.get("listing") != new["listing"]:
        differences.append(
            f"the training videos or their T were {shown(old.get('videos'))} with "
            f"{shown(old.get('snippets'))} snippets, are {new['videos']} with {new['snippets']}"
        )
    done = state.epoch + (state.steps > 0)
    if done > config.epoch:
        differences.append(f"epoch is {config.epoch}, but epoch {done} has begun")
    return differences
