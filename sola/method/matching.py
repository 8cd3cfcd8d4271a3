"""What learns, and one step of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sola.config import Config
from sola.method.module import SimilarityMatching
from sola.method.tsm import similarity_matching_loss, target_tsm
from sola.method.weights import CheckpointError, is_plain_tensor
from sola.system.cli import seed_everything
from sola.system.ranks import rank_count

WINDOWS_MEASURED = 32  # for the size of the update


@dataclass(frozen=True)
class Learner:
    """What learns, and from which rows of a window."""

    model: SimilarityMatching
    parallel: nn.Module  # the model, spread over the ranks when there are several
    optimiser: torch.optim.Optimizer
    target: Tensor  # [L, L]
    times: tuple[int, ...]  # [R]
    uses_tf32: bool


def make_learner(config: Config, device: torch.device) -> Learner:
    """Model with its seeded initial weights, and AdamW over all of it, on a device."""
    seed_everything(config.seed)
    model = SimilarityMatching(config).to(device)
    return Learner(
        model,
        parallel=nn.parallel.DistributedDataParallel(model) if rank_count() > 1 else model,
        optimiser=torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=0.01, fused=True
        ),
        target=target_tsm(config.tsm_size, config.oracle_coef).to(device),
        times=model.input_times,
        uses_tf32=config.precision == "tf32",
    )


def learner_state(learner: Learner) -> dict[str, Any]:
    """All that learning goes on from: weights and the optimiser's moments."""
    return {
        "model": learner.model.state_dict(),
        "optimiser": learner.optimiser.state_dict()["state"],
    }


def restore(learner: Learner, state: dict[str, Any]) -> None:
    """Go on from what learner_state gave. Raises CheckpointError when it is of another learner."""
    model, moments = state["model"], state["optimiser"]
    weights, parameters = learner.model.state_dict(), list(learner.model.parameters())
    fits = (
        _have_shapes(model, weights)
        and isinstance(moments, dict)
        and list(moments) in ([], list(range(len(parameters))))  # none before the first step
        and all(
            _have_shapes(
                moments[number],
                {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter},
            )
            for number, parameter in enumerate(parameters)
            if moments
        )
    )
    if not fits:
        raise CheckpointError("the training state is of another network; --restart sets it aside")
    learner.model.load_state_dict(model)
    groups = learner.optimiser.state_dict()["param_groups"]
    learner.optimiser.load_state_dict({"state": moments, "param_groups": groups})


def _have_shapes(values: Any, wanted: dict[str, Tensor]) -> bool:
    """Whether values are finite float tensors of the same names and shapes."""
    return (
        isinstance(values, dict)
        and values.keys() == wanted.keys()
        and all(
            is_plain_tensor(value)
            and value.shape == wanted[name].shape
            and bool(value.isfinite().all())
            for name, value in values.items()
        )
    )


def weights_are_finite(learner: Learner) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(weight.isfinite().all()) for weight in learner.model.parameters())


def training_step(learner: Learner, windows: Tensor, share: float) -> Tensor:
    """One step of the optimiser on this rank's windows [B, R, C], a share of the whole batch.

    Returns the step's figures (see step_figures) times the share: their sum over the ranks is that
    of the batch. Nothing here waits for the device, unless a tap of the module is no run of rows
    (kernel_size2 above 1, or positions near a border of the window): then its indices are sent.
    """
    torch.backends.cuda.matmul.allow_tf32 = learner.uses_tf32  # not for the probe and the pictures
    cosines = learner.parallel(windows, learner.times)
    loss = similarity_matching_loss(cosines, learner.target)
    learner.optimiser.zero_grad()
    (loss * (share * rank_count())).backward()  # the ranks' gradients are averaged
    learner.optimiser.step()
    torch.backends.cuda.matmul.allow_tf32 = False
    return share * step_figures(loss, cosines)


def step_figures(loss: Tensor, cosines: Tensor) -> Tensor:
    """Loss, and mean and mean square of the cosines off the diagonal: float64 [3]."""
    size = cosines.shape[-1]
    # all but the diagonal, as a view: without its last entry, the diagonal is a first column
    others = cosines.detach().flatten(1)[:, :-1].unflatten(1, (size - 1, size + 1))[:, :, 1:]
    others = others.double()  # a small spread is the difference of two large numbers
    return torch.stack([loss.detach().double(), others.mean(), others.square().mean()])


@torch.no_grad()
def update_ratio(learner: Learner, windows: Tensor) -> float:
    """Size of the module's update against its input: |y - x| / |x| over some windows [B, R, C]."""
    windows = windows[:WINDOWS_MEASURED]
    positions = learner.model.positions
    x = windows[:, [learner.times.index(position) for position in positions]]
    update = learner.model.module(windows, positions, learner.times) - x
    return (update.norm() / x.norm().clamp_min(1e-12)).item()
