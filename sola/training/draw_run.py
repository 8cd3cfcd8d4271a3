"""The pictures of a run: TSMs of whole videos, the windows it trains on, and its curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sola.config import Config
from sola.data.features import read_features
from sola.data.windows import epoch_windows
from sola.method.matching import Learner
from sola.plots.__main__ import CURVES, curves
from sola.plots.figure import save_figure
from sola.plots.tsms import VideoPicture, self_similarity, tsm_sheet, window_sheet
from sola.probe.snippets import encode_video
from sola.records import Record
from sola.training.inputs import RunData

WINDOWS_DRAWN = 4


def draw_tsms(config: Config, epoch: int, learner: Learner, data: RunData) -> None:
    """Draw <exp_name>_epoch<k>.png, the TSMs of the videos to draw, and <exp_name>_batch.png."""
    module, videos = learner.model.module, []
    for name, file in data.drawn.items():
        features = read_features(file)
        encoded = encode_video(module, features)
        tsms = self_similarity(features), self_similarity(encoded)
        videos.append(VideoPicture(name, file.length, *tsms, data.drawn_labels.get(name)))
    about = f"{config.exp_name}, epoch {epoch}"
    sheet = tsm_sheet(f"Temporal self-similarity, {about}", videos, config.visualizing_fps or None)
    save_figure(config.picture_folder / f"{config.exp_name}_epoch{epoch}.png", sheet)
    names, windows = first_windows(config, data, learner.times)
    with torch.no_grad():
        cosines = learner.model(torch.from_numpy(windows).to(learner.target.device), learner.times)
    sheet = window_sheet(
        f"Similarities predicted in {len(names)} training windows, {about}",
        names,
        cosines.float().cpu().numpy(),
        learner.target.cpu().numpy(),
    )
    save_figure(config.picture_folder / f"{config.exp_name}_batch.png", sheet)


def first_windows(
    config: Config, data: RunData, times: tuple[int, ...]
) -> tuple[list[str], np.ndarray]:
    """Videos and rows, float32 [B, R, C], of the first windows of epoch 1: always the same ones."""
    lengths = [video.length for video in data.videos]
    order, starts = epoch_windows(lengths, config.sampling_duration, seed=config.seed, epoch=1)
    files = [data.videos[number] for number in order[:WINDOWS_DRAWN]]
    windows = [
        read_features(file, start + np.array(times))
        for file, start in zip(files, starts, strict=False)
    ]
    return [Path(file.path).stem for file in files], np.stack(windows)


def draw_curves(config: Config, records: Sequence[Record]) -> None:
    """Draw curves.png, if anything is on record."""
    if records:
        save_figure(config.picture_folder / CURVES, curves({config.exp_name: records}))
