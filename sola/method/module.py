"""The SoLa module, and the siamese model that trains it by similarity matching."""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sola.config import Config
from sola.method.tsm import predicted_tsm
from sola.method.weights import CheckpointError, load_weights


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

        def conv(in_dim: int, layer: int) -> nn.Conv1d:
            kernel, dilation = kernel_sizes[layer], dilations[layer]
            conv = nn.Conv1d(in_dim, hidden_dim, kernel, dilation=dilation)
            # each tap's matrix in one piece of memory, so that none is copied to be multiplied with
            taps = _taps_first(conv.weight.data).clone(memory_format=torch.contiguous_format)
            conv.weight.data = taps.permute(1, 2, 0)
            return conv

        self.alpha = nn.Parameter(torch.zeros(1))
        self.conv_network = nn.Sequential(
            conv(feature_dim, 0),
            nn.ReLU(),
            conv(hidden_dim, 1),
            nn.ReLU(),
            nn.Conv1d(hidden_dim, feature_dim, 1),
        )

    def forward(
        self,
        x: Tensor,
        positions: Sequence[int] | None = None,
        times: Sequence[int] | None = None,
        outside: Sequence[int] = (),
    ) -> Tensor:
        """Refine x, at every position or at some.

        x: [B, T, C]. positions: L times in 0..T-1, in any order. Returns [B, T, C], or with
        positions [B, L, C], equal to self(x)[:, positions] but computed there only.
        times: what times the rows of x are, in any order, when x holds only those within reach of
        the positions (see input_times); any other time then lies outside the video. outside: times
        that lie outside a video though x has rows for them, of zeros, as between two videos.
        Raises IndexError for a position that x does not hold.

        Memory is best laid out time-major, x = y.transpose(0, 1) with y [T, B, C] contiguous: a tap
        of a convolution is then a run of rows, and a matrix product without any copy.
        """
        times = tuple(range(x.shape[1]) if times is None else times)
        # they may come as a tensor
        positions = times if positions is None else tuple(int(time) for time in positions)
        inside = set(times)
        if not inside.issuperset(positions):
            raise IndexError(f"positions outside the {x.shape[1]} snippets given: {positions}")
        inside.difference_update(outside)
        first, _, second, _, last = self.conv_network
        hidden_times = _hidden_times(second, positions)
        rows = x.transpose(0, 1)  # [T, B, C]
        hidden = _conv_at(first, rows, times, hidden_times).relu()  # [len(hidden_times), B, H]
        is_inside = [time in inside for time in hidden_times]
        if not all(is_inside):  # outside, the second convolution sees zeros
            hidden = hidden * hidden.new_tensor(is_inside)[:, None, None]
        hidden = _conv_at(second, hidden, hidden_times, positions).relu()  # [L, B, H]
        update = linear(hidden, last.weight[:, :, 0], last.bias)  # [L, B, C]
        refined = torch.addcmul(_rows_at(rows, times, positions), self.alpha.tanh(), update)
        return refined.transpose(0, 1)

    def input_times(self, positions: Sequence[int]) -> tuple[int, ...]:
        """Times that outputs at some positions depend on, also outside the video.

        Ordered as the first convolution likes its rows best.
        """
        first, _, second, _, _ = self.conv_network
        return _input_times(_taps(first), _hidden_times(second, tuple(positions)))

    @property
    def reach(self) -> int:
        """How many snippets away an input still matters."""
        return max(self.input_times([0]))


def _taps(conv: nn.Conv1d) -> tuple[int, ...]:
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    return tuple((tap - kernel // 2) * dilation for tap in range(kernel))


def _taps_first(weight: Tensor) -> Tensor:
    return weight.permute(2, 0, 1)  # [C_out, C_in, k] -> [k, C_out, C_in]


def _hidden_times(second: nn.Conv1d, positions: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(_input_times(_taps(second), positions)))


@lru_cache(maxsize=64)  # a training step asks the same every time
def _input_times(taps: tuple[int, ...], times: tuple[int, ...]) -> tuple[int, ...]:
    """What outputs at some times depend on, so ordered that each tap of them is a run.

    For evenly spaced times those of one phase lie together: for 4, 6, 8 and taps -1, 0, 1 the order
    is 4, 6, 8, 3, 5, 7, 9.
    """
    spacing = min((b - a for a, b in itertools.pairwise(sorted(set(times)))), default=1)
    needed = {time + tap for time in times for tap in taps}
    return tuple(sorted(needed, key=lambda time: (time % spacing, time)))


def _conv_at(
    conv: nn.Conv1d, rows: Tensor, times: tuple[int, ...], wanted: tuple[int, ...]
) -> Tensor:
    """The convolution's outputs at the wanted times, one matrix product a tap.

    rows: [R, B, C_in] at these times; any other time lies outside the video and counts as zero.
    Returns [len(wanted), B, C_out].
    """
    needed = _input_times(_taps(conv), wanted)
    rows = _rows_at(rows, times, needed)
    output = None
    for weight, tap in zip(_taps_first(conv.weight), _taps(conv), strict=True):
        seen = _rows_at(rows, needed, tuple(time + tap for time in wanted))
        if output is None:
            output = linear(seen, weight, conv.bias).float()  # the sum is, also with bf16 products
        else:
            output += linear(seen, weight)
    return output


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear: x [..., C_in], weight [C_out, C_in], bias [C_out] -> [..., C_out].

    On a CPU as a convolution of kernel size 1, for which PyTorch calls oneDNN. That uses AVX-512
    wherever there is, MKL's matrix product on Intel's processors only: half the speed on others.
    """
    if x.device.type != "cpu" or not x.numel():
        return F.linear(x, weight, bias)
    rows = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # [1, C_in, 1, M], channels last
    output = F.conv2d(rows, weight[:, :, None, None], bias)
    return output.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """nn.Linear by way of `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def _rows_at(rows: Tensor, times: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
    """Rows [R, B, C] at the wanted times; zeros where there is none.

    A view where the wanted rows lie next to one another, else a copy.
    """
    found = _find(times, wanted)
    inside = np.flatnonzero(found >= 0)
    if len(inside):
        first, end = inside[0], inside[-1] + 1
        start = found[first]
        if np.array_equal(found[first:end], np.arange(start, start + end - first)):
            rows = rows[start : start + end - first]
            before, after = int(first), int(len(found) - end)
            return F.pad(rows, (0, 0, 0, 0, before, after)) if before or after else rows
    rows = F.pad(rows, (0, 0, 0, 0, 0, 1))  # row -1: the zeros
    return rows.index_select(0, torch.from_numpy(found % len(rows)).to(rows.device))


@lru_cache(maxsize=64)
def _find(times: tuple[int, ...], wanted: tuple[int, ...]) -> np.ndarray:
    """Where each wanted time is among the times, -1 where it is not."""
    row_of = {time: row for row, time in enumerate(times)}
    return np.array([row_of.get(time, -1) for time in wanted], dtype=np.int64)


class SimilarityMatching(nn.Module):
    """SoLa module, projector and predictor in training: windows [B, W, C] -> cosines [B, L, L].

    The SimSiam scheme on time: projections of the gathered positions are compared with their own
    predictions. Members: .module, .projector, .predictor, .positions. With precision: bf16 the
    matrix products are computed in bfloat16, weights and TSM stay float32.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.positions = config.gathered_positions
        self.window = range(config.sampling_duration)
        self.uses_bf16 = config.precision == "bf16"
        self.module = SoLaModule(
            feature_dim=config.in_feature_dim,
            hidden_dim=config.network_hidden_unit,
            kernel_sizes=config.kernel_sizes,
            dilations=config.dilations,
        )
        feature_dim, hidden_dim = config.out_feature_dim, config.mlphead_hidden_unit
        self.projector = _mlp(
            [feature_dim] + [hidden_dim] * (config.mlp_layer_num - 1) + [feature_dim]
            if config.mlp_layer_num
            else [feature_dim]
        )
        self.predictor = _mlp(
            [feature_dim, config.dissim_proj_hidden_unit, config.dissim_proj_out]
            if config.use_dissim_head
            else [feature_dim]
        )

    def forward(self, windows: Tensor, times: Sequence[int] | None = None) -> Tensor:
        """windows [B, W, C] -> predicted TSM, cosines [B, L, L].

        times: what times of the window the rows are, when only some are given (see SoLaModule).
        """
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=self.uses_bf16):
            gathered = self.module(windows, self.positions, times).contiguous()  # [B, L, C]
            z = F.normalize(self.projector(gathered).float(), dim=-1)
            prediction = self.predictor(z)
        return predicted_tsm(z, prediction.float())

    @property
    def input_times(self) -> tuple[int, ...]:
        """Times of a window that the gathered positions can see."""
        times = self.module.input_times(self.positions)
        return tuple(time for time in times if time in self.window)


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them; the identity for a single size."""
    layers: list[nn.Module] = []
    for in_dim, out_dim in itertools.pairwise(sizes):
        layers += [Linear(in_dim, out_dim), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def load_module(path: str | Path, dilations: Sequence[int] = (1, 1)) -> SoLaModule:
    """A SoLa module from its checkpoint, this program's or the original's, in eval mode.

    Sizes come from the weights; dilations are not in them and must be those of the training.
    Raises CheckpointError for a file that is missing, damaged or not of a SoLa module.
    """
    weights = load_weights(path)
    try:
        hidden_dim, feature_dim, kernel1 = weights["conv_network.0.weight"].shape
        kernel2 = weights["conv_network.2.weight"].shape[2]
        module = SoLaModule(feature_dim, hidden_dim, (kernel1, kernel2), dilations)
        module.load_state_dict(weights)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a checkpoint of a SoLa module ({reason})") from error
    return module.eval()
