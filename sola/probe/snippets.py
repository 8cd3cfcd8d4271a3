"""Videos through the SoLa module: whole ones for export, single snippets for the linear probe.

Several videos are laid on one time axis, too far apart to see one another, since a matrix product
pays with a thousand rows or more. Their files are read ahead by threads.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sola.data.features import FeatureFile, read_features
from sola.method.module import SoLaModule
from sola.system.cli import progress
from sola.system.prefetch import in_background

SNIPPETS_PER_BATCH = 512  # of the probe
ROWS_PER_BATCH = 2048  # of whole videos
BATCHES_AHEAD = 3
READERS = 4


@torch.inference_mode()
def encode_video(module: SoLaModule, features: np.ndarray) -> np.ndarray:
    """SoLa features of a video: float32 [T, C] -> float32 [T, C]."""
    x = torch.from_numpy(features).to(module.alpha.device)[None]  # [1, T, C]
    return module(x)[0].cpu().numpy()


def batches_of_videos(lengths: Sequence[int]) -> list[range]:
    """Neighbouring videos of ROWS_PER_BATCH snippets in all, or a single longer one.

    They depend on the list of lengths alone: what is encoded in the same batches is the same to the
    last bit.
    """
    batches, first, rows = [], 0, 0
    for video, length in enumerate(lengths):
        if rows and rows + length > ROWS_PER_BATCH:
            batches.append(range(first, video))
            first, rows = video, 0
        rows += length
    return [*batches, range(first, len(lengths))]


def encode_batches(
    module: SoLaModule, batches: Sequence[Sequence[FeatureFile]]
) -> Iterator[list[np.ndarray]]:
    """SoLa features of batches of whole videos: for each a list of float32 [T, C].

    Memory: BATCHES_AHEAD + 2 batches, whatever their number.
    """
    if not batches:
        return
    sizes = [sum(video.length + module.reach for video in batch) for batch in batches]
    shape = max(sizes) + module.reach, batches[0][0].shape[1]
    buffers = [torch.empty(shape) for _ in range(BATCHES_AHEAD + 1)]
    jobs = zip(batches, itertools.cycle(buffers), strict=False)
    read = partial(_read_videos, module.reach)
    rows = in_background(read, jobs, threads=READERS, ahead=BATCHES_AHEAD)
    for batch, x in zip(batches, rows, strict=True):
        yield _encode_batch(module, batch, x)


def _read_videos(reach: int, job: tuple[Sequence[FeatureFile], Tensor]) -> Tensor:
    """Fill the buffer's first rows with videos, zeros before, between and after them."""
    batch, buffer = job
    end = 0
    for video in batch:
        start, end = end + reach, end + reach + video.length
        buffer[start - reach : start] = 0
        read_features(video, out=buffer[start:end].numpy())
    buffer[end : end + reach] = 0
    return buffer[: end + reach]


@torch.inference_mode()
def _encode_batch(
    module: SoLaModule, batch: Sequence[FeatureFile], rows: Tensor
) -> list[np.ndarray]:
    reach = module.reach
    starts = np.cumsum([0, *(video.length + reach for video in batch)]).tolist()
    y = module(
        rows.to(module.alpha.device)[None],  # [1, R, C]
        positions=range(starts[-1] - reach),  # also between the videos, and not used there
        times=range(-reach, starts[-1]),
        outside=[start - gap for start in starts for gap in range(1, reach + 1)],
    )[0]
    y = y.cpu().numpy()
    return [y[start : start + video.length] for start, video in zip(starts, batch, strict=False)]


@torch.inference_mode()
def encode_snippets(
    module: SoLaModule, videos: Sequence[FeatureFile], positions: Sequence[np.ndarray]
) -> np.ndarray:
    """SoLa features of single snippets: float32 [N, C], computed and read only where asked.

    positions: for each video the times wanted, ascending; N is their number in all.
    """
    total = sum(len(wanted) for wanted in positions)
    encoded = np.empty((total, videos[0].shape[1]), np.float32)
    done = 0
    bar = progress(total=total, desc="probe", unit="snippet")
    read = partial(_read_snippets, module)
    batches = _batches_of_snippets(videos, positions)
    for x, times, wanted in in_background(read, batches, threads=READERS, ahead=BATCHES_AHEAD):
        y = module(x.to(module.alpha.device)[None], positions=wanted, times=times)[0]
        encoded[done : done + len(wanted)] = y.cpu().numpy()
        done += len(wanted)
        bar.update(len(wanted))
    bar.close()
    return encoded


def _batches_of_snippets(
    videos: Sequence[FeatureFile], positions: Sequence[np.ndarray]
) -> Iterator[list[tuple[FeatureFile, np.ndarray]]]:
    batch, snippets = [], 0
    for video, wanted in zip(videos, positions, strict=True):
        for first in range(0, len(wanted), SNIPPETS_PER_BATCH):
            part = wanted[first : first + SNIPPETS_PER_BATCH]
            if snippets + len(part) > SNIPPETS_PER_BATCH:
                yield batch
                batch, snippets = [], 0
            batch.append((video, part))
            snippets += len(part)
    if batch:
        yield batch


def _read_snippets(
    module: SoLaModule, batch: list[tuple[FeatureFile, np.ndarray]]
) -> tuple[Tensor, list[int], list[int]]:
    """The rows that matter on the common time axis, [R, C], their times, and the wanted times."""
    rows, times, positions, origin = [], [], [], 0
    for video, wanted in batch:
        seen = sorted(module.input_times(wanted.tolist()))
        reach = [time for time in seen if 0 <= time < video.length]
        rows.append(read_features(video, reach))
        times += [origin + time for time in reach]
        positions += [origin + int(time) for time in wanted]
        origin += video.length + module.reach
    return torch.from_numpy(np.concatenate(rows)), times, positions
