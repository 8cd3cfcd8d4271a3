"""What the probe scores: labelled snippets of some videos, and their SoLa features."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sola.data.features import FeatureFile, is_finite, read_features
from sola.errors import DataError
from sola.method.module import SoLaModule
from sola.system.cli import progress
from sola.system.device import random_generator
from sola.system.prefetch import in_background

ROWS_PER_BATCH = 2560
BATCHES_AHEAD = 3
READERS = 4


def check_both_kinds(name: str, labels: Sequence[np.ndarray]) -> None:
    """Raise DataError where the labels of a split's videos, bool [T] each, are all of one kind."""
    counts = [sum(int((of == kind).sum()) for of in labels) for kind in (False, True)]
    if 0 in counts:
        raise DataError(
            f"{name} labels: {counts[0]} non-action and {counts[1]} action snippets in the "
            f"{len(labels)} videos of the subset; a probe needs both"
        )


@dataclass(frozen=True)
class ProbeVideos:
    """Videos that the probe looks at: feature files and per-snippet action labels, bool [T]."""

    name: str
    files: list[FeatureFile]
    labels: list[np.ndarray]

    def __post_init__(self) -> None:
        check_both_kinds(self.name, self.labels)

    @property
    def flat_labels(self) -> np.ndarray:
        """Labels of all snippets, video after video: bool [N]."""
        return np.concatenate(self.labels)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """At most count snippets, the same for the same seed: ascending indices [n].

        Raises DataError when one of the classes is not among them.
        """
        labels = self.flat_labels
        snippets = np.arange(len(labels))
        if count < len(labels):
            generator = random_generator(f"{self.name} snippets", seed)
            snippets = np.sort(generator.choice(len(labels), count, replace=False))
        if len(np.unique(labels[snippets])) < 2:
            raise DataError(f"{self.name}: only one class among {count} snippets drawn; draw more")
        return snippets

    def encode(self, module: SoLaModule, snippets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """L2-normalised SoLa features and labels of some snippets.

        snippets: ascending indices into flat_labels, [n]. Returns float32 [n, C], bool [n].
        """
        ends = np.cumsum([*map(len, self.labels)])
        video = np.searchsorted(ends, snippets, side="right")
        times = snippets - np.concatenate([[0], ends])[video]
        features = encode_snippets(module, self.files, video, times)
        if not is_finite(features):
            row = np.flatnonzero(~np.isfinite(features).all(axis=1))[0]
            check_finite(self.files[video[row]], features)
        norms = np.sqrt(np.einsum("nc,nc->n", features, features))  # without a copy of all
        features /= np.maximum(norms, 1e-12)[:, None]
        return features, self.flat_labels[snippets]


def check_finite(file: FeatureFile, features: np.ndarray) -> None:
    """Raise DataError for NaN or Inf in what the module makes of a file."""
    if not is_finite(features):
        raise DataError(f"{file.path}: the module's output is NaN or infinite there")


def mean_and_deviation(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of every channel over the parts' snippets, [n, C] each: float32 [C] and [C].

    A constant channel has deviation 1.
    """
    count = sum(map(len, parts))
    total, square = parts[0].new_zeros(2, parts[0].shape[1], dtype=torch.float64)
    for x in parts:
        total += x.sum(dim=0, dtype=torch.float64)
        square += x.double().square().sum(dim=0)
    mean, square = total / count, square / count
    variance = (square - mean**2).clamp(min=0)
    variance[variance <= 1e-12 * square] = 1
    return mean.float(), variance.sqrt().float()


@torch.inference_mode()
def encode_snippets(
    module: SoLaModule, files: Sequence[FeatureFile], videos: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """SoLa features of single snippets: float32 [N, C], read and computed only where asked.

    videos: of each snippet, indices into the files, ascending, [N]. times: in its video, ascending
    there, [N]. A snippet is encoded within its clip, the rows within the module's reach. Clips of
    one size with the snippet at one place, as almost all are but at borders of videos, share a
    matrix product: video by video takes three times as long.
    """
    lengths = np.array([file.length for file in files])[videos]
    sizes = np.minimum(lengths, 2 * module.reach + 1)
    starts = np.clip(times - module.reach, 0, lengths - sizes)
    places = times - starts
    encoded = np.empty((len(times), files[0].shape[1]), np.float32)
    bar = progress(total=len(times), desc="probe", unit="snippet")
    read = partial(_read_clips, files, videos, starts)
    batches = [*_batches(sizes, places)]
    clips = in_background(read, batches, threads=READERS, ahead=BATCHES_AHEAD)
    for (snippets, _, place), x in zip(batches, clips, strict=True):
        y = module(torch.from_numpy(x).to(module.alpha.device), positions=[place])  # [n, 1, C]
        encoded[snippets] = y[:, 0].cpu().numpy()
        bar.update(len(snippets))
    bar.close()
    return encoded


Batch = tuple[np.ndarray, int, int]  # snippets [n], rows of their clips, place in them


def _batches(sizes: np.ndarray, places: np.ndarray) -> Iterator[Batch]:
    """Snippets whose clips have one size and which stand at one place in them."""
    order = np.lexsort((places, sizes))  # stable: video after video
    for (size, place), group in itertools.groupby(order, lambda i: (int(sizes[i]), int(places[i]))):
        snippets, count = np.array([*group]), max(1, ROWS_PER_BATCH // size)
        for first in range(0, len(snippets), count):
            yield snippets[first : first + count], size, place


def _read_clips(
    files: Sequence[FeatureFile], videos: np.ndarray, starts: np.ndarray, batch: Batch
) -> np.ndarray:
    """The clips of a batch, float32 [n, rows, C]; each row of a file is read once."""
    snippets, size, _ = batch
    clips = np.empty((len(snippets), size, files[0].shape[1]), np.float32)
    firsts = np.flatnonzero(np.diff(videos[snippets], prepend=-1))
    for own in np.split(np.arange(len(snippets)), firsts[1:]):  # of one video
        wanted = starts[snippets[own]][:, None] + np.arange(size)  # [n, rows]
        rows, places = np.unique(wanted, return_inverse=True)
        features = read_features(files[videos[snippets[own[0]]]], rows)
        clips[own] = features[places.reshape(wanted.shape)]
    return clips
