"""What the steps of an epoch give: their scalars by name, held to be finite, and their record."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sola.config import Config
from sola.data.features import FeatureFile
from sola.data.windows import EpochPlan
from sola.errors import TrainingError
from sola.method.matching import Learner
from sola.system.ranks import sum_over_ranks


def joined(before: dict[str, Tensor], new: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The scalars of an epoch's steps by name, [steps] each, on the CPU: this waits for the device.

    before: those of earlier steps. new: this rank's scalars of each step since, see training_step;
    they are summed over the ranks here. A name that either lacks is left out.
    """
    together = torch.stack([torch.stack([*scalars.values()]) for scalars in new], dim=1)
    after = dict(zip(new[0], sum_over_ranks(together).cpu(), strict=True))
    if not before:
        return after
    return {n: torch.cat([before[n], values]) for n, values in after.items() if n in before}


def check_losses(
    losses: Tensor, config: Config, epoch: int, videos: list[FeatureFile], plan: EpochPlan
) -> None:
    """Raise TrainingError for the first step whose loss is not finite, naming its videos."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        batch = plan.windows[0][step * config.batch_size : (step + 1) * config.batch_size]
        names = " ".join(Path(videos[i].path).stem for i in batch)
        raise TrainingError(
            f"epoch {epoch}, step {step + 1}: the loss is {losses[step].item()}; "
            f"{_diverged(config)} (batch of {len(batch)} videos: {names})"
        )


def check_finite(
    learner: Learner, config: Config, epoch: int, figures: Iterable[float] = ()
) -> None:
    """Raise TrainingError for a weight, or a figure of the epoch, that is NaN or infinite."""
    weights = (weight.isfinite().all() for weight in learner.model.parameters())
    if not (all(weights) and all(map(math.isfinite, figures))):
        raise TrainingError(f"epoch {epoch}: {_diverged(config)}")


def _diverged(config: Config) -> str:
    return (
        "the weights have diverged, what was saved before is as it was; --restart with a lower "
        f"learning_rate than {config.learning_rate}"
    )
