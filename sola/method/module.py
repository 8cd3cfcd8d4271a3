"""The SoLa module: a residual branch of temporal convolutions on frozen snippet features."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = 16_384  # snippets of a long video that are computed at once


class SoLaModule(nn.Module):
    """Residual temporal convolutions on frozen snippet features: [B, T, C] -> [B, T, C].

    y = x + tanh(alpha) * conv_network(x). alpha starts at 0 and the module as the identity.
    Source: SoLa (CVPR 2023); the parameter names are those of the original's checkpoints.
    """

    def __init__(
        self,
        feature_dim: int,
        hidden_dim: int,
        kernel_sizes: Sequence[int] = (5, 1),
        dilations: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        if any(kernel % 2 == 0 for kernel in kernel_sizes):
            raise ValueError(f"kernel sizes must be odd, got {tuple(kernel_sizes)}")
        (kernel1, kernel2), (dilation1, dilation2) = kernel_sizes, dilations
        self.reach = kernel1 // 2 * dilation1 + kernel2 // 2 * dilation2  # snippets to either side
        self.alpha = nn.Parameter(torch.zeros(1))
        self.conv_network = nn.Sequential(
            nn.Conv1d(feature_dim, hidden_dim, kernel1, dilation=dilation1, padding="same"),
            nn.ReLU(),
            nn.Conv1d(hidden_dim, hidden_dim, kernel2, dilation=dilation2, padding="same"),
            nn.ReLU(),
            nn.Conv1d(hidden_dim, feature_dim, 1),
        )

    def forward(self, x: Tensor, positions: Sequence[int] | None = None) -> Tensor:
        """Refine x, at every position or at some.

        x: [B, T, C]. positions: L times in 0..T-1, in any order. Returns [B, T, C], or with
        positions [B, L, C], equal to self(x)[:, positions] but computed there only. Raises
        IndexError for a position outside of x, TypeError and ValueError for what is no such x.
        """
        self._check(x)
        if positions is None:
            return x + torch.tanh(self.alpha) * self.conv_network(x.transpose(1, 2)).transpose(1, 2)
        return self._gathered(x, tuple(int(position) for position in positions))

    def _check(self, x: Tensor) -> None:
        """Raise TypeError or ValueError, in a sentence, for what convolutions would fail on."""
        if not isinstance(x, Tensor):
            raise TypeError(f"SoLaModule takes a tensor [B, T, C], not {type(x).__name__}")
        channels, wanted = self.conv_network[0].in_channels, self.alpha.dtype
        if x.ndim != 3 or x.shape[2] != channels:
            raise ValueError(f"SoLaModule takes [B, T, {channels}], not {list(x.shape)}")
        if x.dtype != wanted and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"SoLaModule's weights are {wanted}, the features are {x.dtype}")

    def _gathered(self, x: Tensor, positions: tuple[int, ...]) -> Tensor:
        """forward(x)[:, positions], with each convolution as one matrix product where it counts."""
        first, _, second, _, last = self.conv_network
        times = range(x.shape[1])
        if not set(times).issuperset(positions):
            raise IndexError(f"positions outside the {len(times)} snippets given: {positions}")
        needed = _times_seen(positions, _taps(second))
        hidden_times = tuple(sorted(set(needed).intersection(times)))  # outside: zeros, as padding
        hidden = _conv_at(first, x, times, hidden_times).relu()  # [B, len(hidden_times), H]
        hidden = _conv_at(second, hidden, hidden_times, positions).relu()  # [B, L, H]
        update = F.linear(hidden, last.weight[:, :, 0], last.bias)  # [B, L, C]
        rows, _ = _rows_seen(times, positions, (0,), x.device)
        return x.index_select(1, rows) + torch.tanh(self.alpha) * update


@torch.inference_mode()
def encode_video(module: SoLaModule, features: np.ndarray) -> np.ndarray:
    """SoLa features of a video: float32 [T, C] -> float32 [T, C]."""

    def encode(part: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(part).to(module.alpha.device)[None]  # [1, T, C]
        return module(x)[0].cpu().numpy()

    return in_blocks(encode, features, module.reach)


def in_blocks(
    encode: Callable[[np.ndarray], np.ndarray], features: np.ndarray, reach: int
) -> np.ndarray:
    """encode(features), [T, C] -> [T, C_out], with no more than a block of T under way.

    reach: how many snippets to either side encode looks at; blocks overlap by as many.
    """
    made = []
    for start in range(0, len(features), BLOCK):
        first = max(0, start - reach)
        part = encode(features[first : start + BLOCK + reach])
        made.append(part[start - first :][:BLOCK])
    return np.concatenate(made)


def lay_out_taps(module: SoLaModule) -> None:
    """Let the weights lie tap after tap in memory, for a module that mostly computes at positions.

    Then _conv_at multiplies with them as they are; whole videos take longer.
    """
    for conv in (module.conv_network[0], module.conv_network[2]):
        taps = conv.weight.data.transpose(1, 2)  # [H, k, C]
        conv.weight.data = taps.clone(memory_format=torch.contiguous_format).transpose(1, 2)


def _taps(conv: nn.Conv1d) -> tuple[int, ...]:
    """How far from an output's time its inputs lie."""
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    return tuple((tap - kernel // 2) * dilation for tap in range(kernel))


def _times_seen(wanted: Sequence[int], taps: Sequence[int]) -> list[int]:
    return [time + tap for time in wanted for tap in taps]


def _conv_at(conv: nn.Conv1d, x: Tensor, times: Sequence[int], wanted: tuple[int, ...]) -> Tensor:
    """A convolution's outputs at the wanted times: x [B, R, C_in] at `times` -> [B, W, C_out]."""
    rows, sees_outside = _rows_seen(times, wanted, _taps(conv), x.device)
    if sees_outside:
        x = F.pad(x, (0, 0, 0, 1))  # a row of zeros, the last
    batch, length, _ = x.shape
    rows = rows + length * torch.arange(batch, device=x.device)[:, None]  # [B, W * k]
    seen = x.flatten(0, 1).index_select(0, rows.flatten())  # [B * W * k, C_in]
    weight = conv.weight.transpose(1, 2).flatten(1)  # [C_out, k * C_in]
    return F.linear(seen.view(batch, len(wanted), weight.shape[1]), weight, conv.bias)


@lru_cache(maxsize=64)  # a training step asks the same every time
def _rows_seen(
    times: Sequence[int], wanted: tuple[int, ...], taps: tuple[int, ...], device: torch.device
) -> tuple[Tensor, bool]:
    """Rows of x [B, R, C] that the taps see for each wanted time, [W * k]; R where x has none."""
    row_of = {time: row for row, time in enumerate(times)}
    rows = [row_of.get(time, len(times)) for time in _times_seen(wanted, taps)]
    with torch.inference_mode(False):  # a probe may ask first, for rows that a training uses, too
        return torch.tensor(rows, dtype=torch.int64, device=device), len(times) in rows
