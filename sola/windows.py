"""Which windows an epoch sees, and how their snippets reach the training step."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from sola.dataset import ArrayFile, read_features
from sola.runtime import random_generator

PREFETCHED_BATCHES = 2
WINDOWS_PER_READ = 16  # one reader's share of a batch at a time


def epoch_windows(
    lengths: Sequence[int], sampling_duration: int, *, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """One window of every video, in random order: (video indices [V], window starts [V]).

    Starts are uniform over 0..T - sampling_duration. Depends on (seed, epoch) alone, so that an
    epoch is the same after a resume and for any number of readers.
    """
    generator = random_generator("windows", seed, epoch)
    starts = generator.integers(0, np.asarray(lengths) - sampling_duration + 1)
    order = generator.permutation(len(lengths))
    return order, starts[order]


def window_batches(
    videos: Sequence[ArrayFile],
    windows: tuple[np.ndarray, np.ndarray],
    *,
    sampling_duration: int,
    batch_size: int,
    num_workers: int,
) -> Iterator[Tensor]:
    """Batches of windows, float32 [B, W, C], read ahead by num_workers threads (at least one).

    Never holds more than the batch in use and the prefetched ones. The last batch may be smaller.
    """
    feature_dim = videos[0].shape[1]

    def read_into(batch: np.ndarray, first: int) -> None:
        for row, window in zip(batch, range(first, first + len(batch)), strict=True):
            start = windows[1][window]
            rows = np.arange(start, start + sampling_duration)
            row[:] = read_features(videos[windows[0][window]], rows)

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        pending = deque()
        for first in range(0, len(windows[0]), batch_size):
            size = min(batch_size, len(windows[0]) - first)
            batch = np.empty((size, sampling_duration, feature_dim), np.float32)
            reads = [
                pool.submit(read_into, batch[part : part + WINDOWS_PER_READ], first + part)
                for part in range(0, size, WINDOWS_PER_READ)
            ]
            pending.append((batch, reads))
            if len(pending) > PREFETCHED_BATCHES:
                yield _finished(*pending.popleft())
        while pending:
            yield _finished(*pending.popleft())


def _finished(batch: np.ndarray, reads: list) -> Tensor:
    for read in reads:
        read.result()
    return torch.from_numpy(batch)
