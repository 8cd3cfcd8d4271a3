"""Similarity matching: predicted TSM, target TSM and their loss, as pure functions on tensors.

Axis letters used throughout the package:
B batch, T time (snippets of a video or window), L gathered positions of a window, C channels.
A TSM is a temporal self-similarity matrix, [L, L], with time running along both axes.
"""

import math

import torch
from torch import Tensor

NORM_EPSILON = 1e-8
PROBABILITY_EPSILON = 1e-5


def target_tsm(tsm_size: int, oracle_coef: float) -> Tensor:
    """Similarity wanted at each pair of gathered positions, from their distance alone.

    1 on the diagonal, sigmoid(oracle_coef / distance**2) elsewhere, the distance counted in
    gathered steps. Returns float32 [L, L] with L = tsm_size. Source: SoLa (CVPR 2023), target TSM.
    """
    position = torch.arange(tsm_size, dtype=torch.float32)
    distance = (position[:, None] - position[None, :]).abs()
    return torch.sigmoid(oracle_coef / distance**2)  # distance 0 gives sigmoid(inf) = 1


def predicted_tsm(z: Tensor, prediction: Tensor) -> Tensor:
    """Cosines of every projection with every prediction: [B, L, C], [B, L, C] -> [B, L, L].

    Row i comes from the projection z_i behind the stop-gradient, column j from the
    prediction h(z_j), so that gradients flow through the columns only (SimSiam).
    """
    z = z.detach()  # the stop-gradient
    norms = z.norm(dim=-1)[:, :, None] * prediction.norm(dim=-1)[:, None, :]
    return z @ prediction.transpose(1, 2) / (norms + NORM_EPSILON)


def similarity_matching_loss(cosines: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of the similarities (1 + cos) / 2 against the target TSM.

    cosines [B, L, L], target [L, L]; returns a scalar. A similarity that reaches 1 or 0 is replaced
    by a constant just inside, so that its entry gives no gradient; all others keep theirs.
    NaN is passed on rather than raised, so that the caller can say where it came from.
    """
    p = (1 + cosines) / 2
    p = p.masked_fill(p >= 1, 1 - PROBABILITY_EPSILON).masked_fill(p <= 0, PROBABILITY_EPSILON)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def loss_landmarks(target: Tensor, *, has_predictor: bool) -> tuple[float, float]:
    """Loss at the floor and on the plateau, the two levels that tell what a loss value means.

    target: [L, L]. The floor is the target's own entropy: no prediction goes below it. The plateau
    is the best constant similarity: a run that stays there has learned no temporal structure.
    Without a predictor the diagonal is always 1, and the constant covers the other entries only.
    """
    target, tsm_size = target.double(), len(target)
    floor = _binary_entropy(target).mean().item()
    if has_predictor:
        return floor, _binary_entropy(target.mean()).item()
    others = target[~torch.eye(tsm_size, dtype=torch.bool)]
    diagonal_loss = -math.log(1 - PROBABILITY_EPSILON) * tsm_size
    others_loss = _binary_entropy(others.mean()).item() * others.numel() if len(others) else 0.0
    return floor, (diagonal_loss + others_loss) / tsm_size**2


def _binary_entropy(p: Tensor) -> Tensor:
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
