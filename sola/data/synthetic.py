"""The demo's data set: synthetic videos, written in the HACS layout.

Each snippet is a signed mix of latents: what the scene looks like (constant over a video), how it
drifts (slowly), whether an action goes on (on or off, in segments), and noise of its own. Single
snippets tell little, since the noise buries the action; neighbours together tell more. That is the
situation of frozen snippet features which SoLa's temporal context improves.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np

from sola.data.labels import label_folder
from sola.data.videos import SPLITS
from sola.errors import SolaError
from sola.system.cli import progress
from sola.system.device import random_generator
from sola.system.files import only_user_of, read_bytes, write_atomically, write_npy

MARKER = "SYNTHETIC.json"  # says what the folder holds, and that this program may use it
VIDEOS = {"training": 240, "validation": 80}
LENGTHS = (60, 180)  # snippets of a video
SEGMENTS = (8, 30)  # snippets of an action, or of what lies between two
LATENTS = 24
SCENE = 0.3  # standard deviations, per latent
DRIFT = 1.0
DRIFT_TIME = 10.0  # snippets until the drift has forgotten itself by a factor of e
ACTION = 3.0  # length of the action's direction, the same one in all videos
NOISE = 2.0


def synthetic_video(
    mixing: np.ndarray, action: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One video: features float32 [T, C] and labels bool [T].

    mixing: [latents, C], action: [latents], both shared by all videos.
    """
    length = int(generator.integers(*LENGTHS, endpoint=True))
    labels = np.zeros(length, bool)
    end, acting = 0, bool(generator.integers(2))
    while end < length:
        start, end = end, end + int(generator.integers(*SEGMENTS, endpoint=True))
        labels[start:end] = acting
        acting = not acting
    kept = np.exp(-1 / DRIFT_TIME)
    drift = DRIFT * generator.standard_normal((length, LATENTS))
    for t in range(1, length):
        drift[t] = kept * drift[t - 1] + np.sqrt(1 - kept**2) * drift[t]
    scene = SCENE * generator.standard_normal(LATENTS)
    noise = NOISE * generator.standard_normal((length, LATENTS))
    latents = scene + drift + labels[:, None] * action + noise  # [T, latents]
    return (latents @ mixing).astype(np.float32), labels


def write_synthetic(
    data_root: str | Path, label_base: str | Path, *, feature_dim: int, seed: int = 0
) -> None:
    """Write the data set unless it is there: features and labels of both splits.

    The folder around data_root and label_base belongs to the data set and appears whole or not at
    all. Raises SolaError when it holds anything else.
    """
    folder, about = Path(data_root).parent, "synthetic features, not real videos"
    marker = json.dumps({"about": about, "channels": feature_dim, "seed": seed}).encode()
    if _is_written(folder, marker):
        return
    with only_user_of(folder):
        if not _is_written(folder, marker):  # by another process, meanwhile
            unfinished = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
            names = Path(data_root).name, Path(label_base).name
            _write_all(*(unfinished / name for name in names), feature_dim, seed)
            write_atomically(unfinished / MARKER, marker)
            os.rename(unfinished, folder)
            written = f"synthetic data set written, {sum(VIDEOS.values())} videos"
            print(f"{folder}: {written}", flush=True)


def _is_written(folder: Path, marker: bytes) -> bool:
    """Whether the folder holds this data set. Raises SolaError when it holds anything else."""
    if (folder / MARKER).is_file():
        if read_bytes(folder / MARKER) != marker:
            raise SolaError(f"{folder}: holds synthetic data of other settings; remove this folder")
        return True
    if folder.exists() and any(folder.iterdir()):
        raise SolaError(
            f"{folder}: holds other files, so no synthetic data is written there; "
            "name a new folder in data_root and label_base"
        )
    return False


def _write_all(data_root: Path, label_base: Path, feature_dim: int, seed: int) -> None:
    generator = random_generator("synthetic", seed)
    mixing = generator.standard_normal((LATENTS, feature_dim)) / np.sqrt(LATENTS)
    action = generator.standard_normal(LATENTS)
    action *= ACTION / np.linalg.norm(action)
    for split in SPLITS:
        features, labels = data_root / split, label_folder(label_base, split)
        for number in progress(range(VIDEOS[split]), desc=f"synthetic {split}", unit="video"):
            x, y = synthetic_video(mixing, action, generator)
            write_npy(features / f"{split}_{number:03d}.npy", x, is_synced=False)
            write_npy(labels / f"{split}_{number:03d}.npy", y, is_synced=False)
