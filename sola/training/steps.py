"""What the steps of an epoch give: their scalars by name, held to be finite, and their record."""

from pathlib import Path

import torch
from torch import Tensor

from sola.config import Config
from sola.data.features import FeatureFile
from sola.data.windows import EpochPlan
from sola.errors import TrainingError
from sola.method.matching import Learner
from sola.system.ranks import is_first_rank, sum_over_ranks


class StepScalars:
    """The scalars of an epoch's steps by name, on the device that trains: float64 [steps] each."""

    def __init__(self, steps: int, device: torch.device, saved: dict[str, Tensor]) -> None:
        """saved: those of the steps that are done, by name, [steps done]."""
        self.steps, self.device, self.values = steps, device, {}
        for name, values in saved.items():
            self.values[name] = self._empty()
            if is_first_rank():  # whose share of the sum they are
                self.values[name][: len(values)] = values.to(device)

    def _empty(self) -> Tensor:
        return torch.zeros(self.steps, dtype=torch.float64, device=self.device)

    def put(self, step: int, scalars: dict[str, Tensor]) -> None:
        """Keep those of a step (from 1); one that earlier steps of the epoch lack is left out."""
        if not self.values:
            self.values = {name: self._empty() for name in scalars}
        for name in self.values.keys() & scalars.keys():
            self.values[name][step - 1] = scalars[name]

    def until(self, step: int) -> dict[str, Tensor]:
        """Those of the steps up to this one, summed over the ranks: [step] each, on the CPU."""
        together = torch.stack([values[:step] for values in self.values.values()])
        return dict(zip(self.values, sum_over_ranks(together).cpu(), strict=True))


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
            f"{diverged(config)} (batch of {len(batch)} videos: {names})"
        )


def weights_are_finite(learner: Learner) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(weight.isfinite().all()) for weight in learner.model.parameters())


def diverged(config: Config) -> str:
    """What to say of figures that are no longer finite."""
    return (
        "the weights have diverged, what was saved before is as it was; --restart with a lower "
        f"learning_rate than {config.learning_rate}"
    )
