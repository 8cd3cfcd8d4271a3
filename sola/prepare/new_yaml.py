"""A new YAML: its folders, channels, the window in seconds, and how many steps are trained."""

import dataclasses
import math
import os
from pathlib import Path

from sola.config import Config, override
from sola.errors import ConfigError
from sola.prepare.dataset import DataSet

CANONICAL_SPAN = 7.0  # seconds from the first gathered position to the last, 8 of them
FEWEST_STEPS = 4  # an epoch, in a YAML for few videos
SMALL_TRAINING = 5_000  # steps; where the canonical epochs have fewer, those below are trained
# On 76 training videos of real actions the linear probe rose until about 3,000 steps, but a head
# with temporal context was best between 500 and 1,250, and at 3,750 worse than on untouched ones.
STEPS = 1_000
SMALL_LEARNING_RATE = 1e-3
EVALUATIONS = 15  # as many as the canonical training has, so that the best epoch can be seen


def data_folder(yaml_path: str) -> Path:
    """The folder of this program's own that belongs to a YAML made from --features."""
    return Path(f"{Path(yaml_path).stem.strip()}_data")


def new_config(yaml_path: str, folder_count: int, annotations: str | None) -> Config:
    """The configuration of a YAML to be made, without sizes: its data lie in data_folder.

    folder_count: folders that are joined on channels. annotations: their file.
    """
    stem = Path(yaml_path).stem
    if "," in stem:
        raise ConfigError(f"--yaml_path={yaml_path}: a comma stands between folders; leave it out")
    if os.path.isdir(yaml_path):
        raise ConfigError(f"--yaml_path={yaml_path}: is a folder; name a file")
    folder = data_folder(yaml_path)
    suffixes = ["", *(f"_{number}" for number in range(2, folder_count + 1))]
    return Config(
        exp_name=stem,
        data_root=",".join(str(folder / f"features{suffix}") for suffix in suffixes),
        label_base=str(folder / "labels"),
        visualizing_dir=",".join(str(folder / f"visualizing{suffix}") for suffix in suffixes),
        annotations=annotations or "",
        fps=0.0,
        eval_head=True,
    )


def sized(data: DataSet, settings: list[str], span: float) -> DataSet:
    """The data set with its sizes in the configuration; settings, KEY=VALUE, win over them.

    The window keeps the canonical one's shape, with so many seconds between its outer positions.
    Few videos get a batch that gives several steps an epoch, STEPS steps, and a larger rate.
    """
    sizes = dict.fromkeys(("in_feature_dim", "out_feature_dim", "dissim_proj_out"), data.width)
    sizes |= window_of(data.rate or 2.0, span)
    trained = trained_on(data, sizes["sampling_duration"])
    batch_size, epoch = data.config.batch_size, data.config.epoch
    while batch_size > 8 and trained / batch_size < FEWEST_STEPS:
        batch_size //= 2
    steps = math.ceil(trained / batch_size)
    if 0 < epoch * steps < SMALL_TRAINING:
        epoch = math.ceil(STEPS / steps)
        sizes |= {"epoch": epoch, "saving_epoch": max(1, round(epoch / EVALUATIONS))}
        sizes["learning_rate"] = SMALL_LEARNING_RATE
    config = dataclasses.replace(data.config, batch_size=batch_size, **sizes)
    changed = override(config, settings)
    for key in ("data_root", "label_base", "visualizing_dir", "annotations", "synthetic"):
        if getattr(changed, key) != getattr(config, key):
            raise ConfigError(f"{key} is {getattr(config, key)} with --features; leave it out")
    return dataclasses.replace(data, config=changed)


def window_of(fps: float, span: float = CANONICAL_SPAN) -> dict[str, int]:
    """step, step_start and sampling_duration at a number of snippets a second.

    The canonical ones at 2: 2, 4 and 23, that is 8 positions a second apart with two seconds on
    either side.
    """
    step = max(1, round(fps * span / CANONICAL_SPAN))
    return {"step": step, "step_start": 2 * step, "sampling_duration": 11 * step + 1}


def trained_on(data: DataSet, sampling_duration: int) -> int:
    """How many training videos are longer than a window."""
    return sum(video.file.length > sampling_duration for video in data.of("training"))


def plan(data: DataSet) -> str:
    """The training in one line: windows, batch, steps."""
    config = data.config
    windows = trained_on(data, config.sampling_duration)
    steps = math.ceil(windows / config.batch_size)
    epochs, evaluations = config.epoch, math.ceil(config.epoch / config.saving_epoch)
    return (
        f"plan: {windows} windows an epoch in batches of {config.batch_size}, {steps} steps; "
        f"{epochs} epochs, {epochs * steps} steps in all, {evaluations} evaluations"
    )
