"""The SoLa module, and the siamese model that trains it by similarity matching."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sola.checkpoint import CheckpointError, load_weights
from sola.config import Config
from sola.tsm import predicted_tsm


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
            padding = dilation * (kernel // 2)
            return nn.Conv1d(in_dim, hidden_dim, kernel, dilation=dilation, padding=padding)

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
    ) -> Tensor:
        """Refine x, at every position or at some.

        x: [B, T, C]. positions: L times in 0..T-1, in any order. Returns [B, T, C], or with
        positions [B, L, C], equal to self(x)[:, positions] but computed there only.
        times: what times the rows of x are, ascending, when x holds only those within reach of the
        positions (see receptive_field); any other time then counts as outside the video.
        Raises IndexError for a position that x does not hold.
        """
        if positions is None:
            update = self.conv_network(x.transpose(1, 2)).transpose(1, 2)
            return x + self.alpha.tanh() * update
        times = range(x.shape[1]) if times is None else times
        row_of = {time: row for row, time in enumerate(times)}
        positions = [int(position) for position in positions]  # they may come as a tensor
        if not all(position in row_of for position in positions):
            raise IndexError(f"positions outside the {x.shape[1]} snippets given: {positions}")
        first, _, second, _, last = self.conv_network
        hidden_times = [time for time in _receptive_field(second, positions) if time in row_of]
        hidden_row_of = {time: row for row, time in enumerate(hidden_times)}
        hidden = _conv_at(first, x, row_of, hidden_times).relu()  # [B, len(hidden_times), H]
        hidden = _conv_at(second, hidden, hidden_row_of, positions).relu()  # [B, L, H]
        update = F.linear(hidden, last.weight[:, :, 0], last.bias)  # [B, L, C]
        return x[:, [row_of[position] for position in positions]] + self.alpha.tanh() * update

    def receptive_field(self, positions: Sequence[int]) -> list[int]:
        """Times, ascending, that outputs at some positions depend on, also outside the video."""
        first, _, second, _, _ = self.conv_network
        return _receptive_field(first, _receptive_field(second, positions))

    @property
    def reach(self) -> int:
        """How many snippets away an input still matters."""
        return self.receptive_field([0])[-1]


def _taps(conv: nn.Conv1d) -> list[int]:
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    return [(tap - kernel // 2) * dilation for tap in range(kernel)]


def _receptive_field(conv: nn.Conv1d, times: Sequence[int]) -> list[int]:
    return sorted({time + tap for time in times for tap in _taps(conv)})


def _conv_at(
    conv: nn.Conv1d, x: Tensor, row_of: dict[int, int], positions: Sequence[int]
) -> Tensor:
    """The convolution's outputs at some positions, as one matrix product.

    x: [B, R, C_in]; row_of: time -> row of x. A time without a row lies outside the video and
    counts as zero. Returns [B, len(positions), C_out].
    """
    rows = [row_of.get(position + tap, -1) for position in positions for tap in _taps(conv)]
    if -1 in rows:
        x = F.pad(x, (0, 0, 0, 1))  # row -1: the zero padding
    weight = conv.weight.transpose(1, 2).flatten(1)  # [C_out, k * C_in]
    gathered = x[:, rows].reshape(len(x), len(positions), weight.shape[1])
    return F.linear(gathered, weight, conv.bias)  # [B, L, C_out]


class SimilarityMatching(nn.Module):
    """SoLa module, projector and predictor in training: windows [B, W, C] -> cosines [B, L, L].

    The SimSiam scheme on time: projections of the gathered positions are compared with their own
    predictions. Members: .module, .projector, .predictor, .positions.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.positions = config.gathered_positions
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

    def forward(self, windows: Tensor) -> Tensor:
        """windows [B, W, C] -> predicted TSM, cosines [B, L, L]."""
        gathered = self.module(windows, positions=self.positions)  # [B, L, C]
        z = F.normalize(self.projector(gathered), dim=-1)
        return predicted_tsm(z, self.predictor(z))


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them; the identity for a single size."""
    layers: list[nn.Module] = []
    for in_dim, out_dim in itertools.pairwise(sizes):
        layers += [nn.Linear(in_dim, out_dim), nn.ReLU()]
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
