"""The pictures of a run: TSMs of whole videos, the windows it trains on, and its curves.

None of them can end a training.
"""

import contextlib
import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from sola.config import Config
from sola.data.features import read_features
from sola.data.times import Sampling
from sola.data.windows import epoch_windows
from sola.errors import SolaError
from sola.method.matching import Learner
from sola.method.module import SoLaModule, encode_video
from sola.method.weights import load_module
from sola.plots.curves import CURVES, curves
from sola.plots.figure import save_figure
from sola.plots.tsms import VideoPicture, self_similarity, tsm_sheet, window_sheet
from sola.records import Record, best_evaluation, best_head, comparable, head_evaluations
from sola.training.inputs import Inputs

WINDOWS_DRAWN = 4
LONG_EPOCH = 20.0  # seconds; curves are drawn after each such epoch, too


def is_drawn(config: Config, epoch: int) -> bool:
    """Whether an epoch's TSMs are drawn: epoch 0, evaluations 1, 2, 4, 8, ... and the last.

    A rule of epochs alone, so that an interrupted run ends with the same pictures.
    """
    number, rest = divmod(epoch, config.saving_epoch)
    return epoch in (0, config.epoch) or (rest == 0 and number & (number - 1) == 0)


def draw_tsms(config: Config, epoch: int, learner: Learner, inputs: Inputs) -> None:
    """Draw <exp_name>_epoch<k>.png, the TSMs of the videos to draw, and <exp_name>_batch.png."""
    with _only_warning(_sheet_file(config, epoch)) as path:
        draw_sheet(path, config, epoch, learner.model.module, inputs)
    with _only_warning(config.picture_folder / f"{config.exp_name}_batch.png") as path:
        names, windows = first_windows(config, inputs)
        with torch.no_grad():
            cosines = learner.model(torch.from_numpy(windows).to(learner.device))  # [B, L, L]
        before = [self_similarity(window[config.gathered_positions]) for window in windows]
        title = f"Training windows and their target, {config.exp_name}, epoch {epoch}"
        tsms = np.stack(before), cosines.cpu().numpy(), learner.target.cpu().numpy()
        save_figure(path, window_sheet(title, names, *tsms))


def draw_best(config: Config, records: Sequence[Record], inputs: Inputs) -> None:
    """Draw the TSMs of the best epochs, from their checkpoints, where they are not drawn yet."""
    best = [
        best_evaluation(comparable(records, config.eval_protocol)),
        best_head(head_evaluations(records)),
    ]
    for epoch in {record["epoch"] for record in best if record}:
        path = _sheet_file(config, epoch)
        if not is_drawn(config, epoch) and not path.exists():
            with _only_warning(path):
                module = load_module(config.model_file(epoch), dilations=config.dilations)
                draw_sheet(path, config, epoch, module, inputs)


def _sheet_file(config: Config, epoch: int) -> Path:
    return config.picture_folder / f"{config.exp_name}_epoch{epoch}.png"


def draw_sheet(path: Path, config: Config, epoch: int, module: SoLaModule, inputs: Inputs) -> None:
    """Draw the videos to draw, as they are and as the module of an epoch makes them."""
    pictures = []
    for name, file in inputs.drawn.items():
        features = read_features(file)
        tsms = map(self_similarity, (features, encode_video(module, features)))
        pictures.append(VideoPicture(name, file.length, *tsms, inputs.drawn_labels.get(name)))
    title = f"Temporal self-similarity, {config.exp_name}, epoch {epoch}"
    save_figure(path, tsm_sheet(title, pictures, Sampling.of(config).common_axis))


def draw_curves(config: Config, records: Sequence[Record]) -> None:
    """Draw curves.png, if anything is on record."""
    if records:
        with _only_warning(config.picture_folder / CURVES) as path:
            save_figure(path, curves({config.exp_name: records}))


@contextlib.contextmanager
def _only_warning(path: Path) -> Iterator[Path]:
    """Around one picture: if it fails, for whatever reason, one line says so and no more."""
    try:
        yield path
    except Exception as error:
        if os.environ.get("SOLA_TRACEBACK") == "1":
            traceback.print_exc()
        known = isinstance(error, SolaError)
        reason = str(error).removeprefix(f"{path}: ") if known else repr(error)
        print(f"warning: the picture {path} was not drawn: {' '.join(reason.splitlines())}")


def first_windows(config: Config, inputs: Inputs) -> tuple[list[str], np.ndarray]:
    """Videos and windows, float32 [B, W, C], of the first ones of epoch 1: always the same ones."""
    lengths = [video.length for video in inputs.videos]
    size = config.sampling_duration
    order, starts = epoch_windows(lengths, size, seed=config.seed, epoch=1)
    files = [inputs.videos[number] for number in order[:WINDOWS_DRAWN]]
    windows = [
        read_features(file, np.arange(start, start + size))
        for file, start in zip(files, starts, strict=False)
    ]
    return [Path(file.path).stem for file in files], np.stack(windows)
