"""Videos through the SoLa module: whole ones for export, single snippets for the linear probe."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sola.dataset import ArrayFile, read_features
from sola.model import SoLaModule
from sola.runtime import progress

SNIPPETS_PER_BATCH = 1024


@torch.inference_mode()
def encode_video(module: SoLaModule, features: np.ndarray) -> np.ndarray:
    """SoLa features of a video: float32 [T, C] -> float32 [T, C]."""
    x = torch.from_numpy(features).to(module.alpha.device)[None]  # [1, T, C]
    return module(x)[0].cpu().numpy()


@torch.inference_mode()
def encode_snippets(
    module: SoLaModule, videos: Sequence[ArrayFile], positions: Sequence[np.ndarray]
) -> np.ndarray:
    """SoLa features of single snippets: float32 [N, C], computed and read only where asked.

    positions: for each video the times wanted, ascending; N is their number in all.
    """
    total = sum(len(wanted) for wanted in positions)
    encoded = np.empty((total, videos[0].shape[1]), np.float32)
    done = 0
    bar = progress(total=total, desc="probe", unit="snippet")
    for batch in _batches(videos, positions):
        x, times, wanted = _on_one_axis(module, batch)
        y = module(x.to(module.alpha.device)[None], positions=wanted, times=times)[0]
        encoded[done : done + len(wanted)] = y.cpu().numpy()
        done += len(wanted)
        bar.update(len(wanted))
    bar.close()
    return encoded


def _batches(
    videos: Sequence[ArrayFile], positions: Sequence[np.ndarray]
) -> Iterator[list[tuple[ArrayFile, np.ndarray]]]:
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


def _on_one_axis(
    module: SoLaModule, batch: list[tuple[ArrayFile, np.ndarray]]
) -> tuple[torch.Tensor, list[int], list[int]]:
    """Lay parts of several videos on one time axis, too far apart to see one another.

    Returns the rows that matter, [R, C], their times, and the wanted times.
    """
    rows, times, positions, origin = [], [], [], 0
    for video, wanted in batch:
        seen = sorted(module.input_times(wanted.tolist()))
        reach = [time for time in seen if 0 <= time < video.length]
        rows.append(read_features(video, reach))
        times += [origin + time for time in reach]
        positions += [origin + int(time) for time in wanted]
        origin += video.length + module.reach
    return torch.from_numpy(np.concatenate(rows)), times, positions
