"""Similarity matching: what learns, and one step of it."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sola.config import Config
from sola.method.module import SoLaModule, lay_out_taps
from sola.method.tsm import loss_landmarks, predicted_tsm, similarity_matching_loss, target_tsm
from sola.system.device import seed_everything
from sola.system.ranks import rank_count

WINDOWS_MEASURED = 32  # for the size of the update


class SimilarityMatching(nn.Module):
    """SoLa module, projector and predictor in training: windows [B, W, C] -> cosines [B, L, L].

    The SimSiam scheme on time: projections of the gathered positions are compared with their own
    predictions. Members: .module, .projector, .predictor, .positions.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        feature_dim, hidden_dim = config.out_feature_dim, config.mlphead_hidden_unit
        layers, predicted_dim = config.mlp_layer_num, config.dissim_proj_out
        self.positions = config.gathered_positions
        self.module = SoLaModule(
            feature_dim=config.in_feature_dim,
            hidden_dim=config.network_hidden_unit,
            kernel_sizes=config.kernel_sizes,
            dilations=config.dilations,
        )
        self.projector = _mlp(
            [feature_dim] + [hidden_dim] * (layers - 1) + [feature_dim] * (layers > 0)
        )
        predictor_dims = [feature_dim, config.dissim_proj_hidden_unit, predicted_dim]
        self.predictor = _mlp(predictor_dims if config.use_dissim_head else [feature_dim])

    def forward(self, windows: Tensor) -> Tensor:
        """windows [B, W, C] -> predicted TSM, cosines [B, L, L]."""
        gathered = self.module(windows, self.positions)  # [B, L, C]
        z = F.normalize(self.projector(gathered).float(), dim=-1)
        prediction = self.predictor(z).float()
        with torch.autocast(windows.device.type, enabled=False):  # cosines near 1 need float32
            return predicted_tsm(z, prediction)  # of z.detach(): the stop-gradient


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them; the identity for a single size."""
    layers: list[nn.Module] = []
    for in_dim, out_dim in itertools.pairwise(sizes):
        layers += [nn.Linear(in_dim, out_dim), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class Learner:
    """What learns, and what a step of it needs."""

    model: SimilarityMatching
    parallel: nn.Module  # the model, spread over the ranks when there are several
    optimiser: torch.optim.Optimizer
    target: Tensor  # [L, L]
    precision: str  # of the matrix products: fp32, tf32 or bf16

    @property
    def device(self) -> torch.device:
        return self.target.device


def make_learner(config: Config, device: torch.device) -> Learner:
    """Model with its seeded initial weights, and AdamW over all of it, on a device."""
    seed_everything(config.seed)
    model = SimilarityMatching(config).to(device)
    lay_out_taps(model.module)
    return Learner(
        model,
        parallel=nn.parallel.DistributedDataParallel(model) if rank_count() > 1 else model,
        optimiser=torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=0.01, fused=True
        ),
        target=target_tsm(**config.target).to(device),
        precision=config.precision,
    )


@functools.cache
def landmarks(config: Config) -> tuple[float, float]:
    """Loss at the floor and on the plateau of a run, see loss_landmarks."""
    return loss_landmarks(target_tsm(**config.target), has_predictor=config.use_dissim_head)


def training_step(learner: Learner, windows: Tensor, share: float = 1.0) -> dict[str, Tensor]:
    """One step of the optimiser on this rank's windows [B, W, C], a share of the whole batch.

    Returns named scalars of the step, times the share: their sums over the ranks are the batch's.
    (Of what all ranks have in common, as weights and gradients, each gives its share, too.) What is
    returned here is recorded and resumed under its name, see epoch_scalars; a curve of it is a line
    in plots/curves.py. Nothing waits for the device.
    """
    torch.backends.cuda.matmul.allow_tf32 = learner.precision == "tf32"  # not for the probe
    uses_bf16 = learner.precision == "bf16"
    with torch.autocast(windows.device.type, torch.bfloat16, enabled=uses_bf16):
        cosines = learner.parallel(windows)
    loss = similarity_matching_loss(cosines, learner.target)
    learner.optimiser.zero_grad()
    (loss * (share * rank_count())).backward()  # the ranks' gradients are averaged
    learner.optimiser.step()
    torch.backends.cuda.matmul.allow_tf32 = False
    others = off_diagonal(cosines.detach()).double()
    scalars = {"loss": loss.detach().double(), "cosine_mean": others.mean()}
    scalars["cosine_square"] = others.square().mean()  # ranks can add these up, not deviations
    return {name: share * value for name, value in scalars.items()}


def off_diagonal(cosines: Tensor) -> Tensor:
    """All entries but the diagonals', as a view: [B, L, L] -> [B, L - 1, L]."""
    size = cosines.shape[-1]  # without its last entry, the diagonal is a first column
    return cosines.flatten(1)[:, :-1].unflatten(1, (size - 1, size + 1))[:, :, 1:]


def epoch_scalars(steps: dict[str, Tensor], sizes: Tensor) -> dict[str, float]:
    """Of the scalars of each step of an epoch, [steps], what is recorded: means over its windows.

    sizes: windows of each step. The mean square of the cosines becomes their deviation.
    """
    steps = dict(steps)
    if "cosine_square" in steps:
        variance = steps.pop("cosine_square") - steps["cosine_mean"] ** 2
        steps["cosine_std"] = variance.clamp_min(0).sqrt()
    return {n: ((values * sizes).sum() / sizes.sum()).item() for n, values in steps.items()}


@torch.no_grad()
def update_ratio(learner: Learner, windows: Tensor) -> float:
    """Size of the module's update against its input: |y - x| / |x| over some windows [B, W, C]."""
    windows, positions = windows[:WINDOWS_MEASURED], learner.model.positions
    x = windows[:, positions]
    update = learner.model.module(windows, positions) - x
    return (update.norm() / x.norm().clamp_min(1e-12)).item()
