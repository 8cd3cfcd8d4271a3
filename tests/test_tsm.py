"""TSM, target and loss against slow references written from the formulas, entry by entry."""

import math

import numpy as np
import pytest
import torch

from sola.method.tsm import loss_landmarks, predicted_tsm, similarity_matching_loss, target_tsm


def test_target_depends_on_distance_alone():
    target = target_tsm(8, 16.0)
    for i in range(8):
        for j in range(8):
            expected = 1.0 if i == j else 1 / (1 + math.exp(-16 / (i - j) ** 2))
            assert target[i, j].item() == pytest.approx(expected, abs=1e-7)
    by_distance = [0.99999988, 0.98201376, 0.85542226, 0.73105860, 0.65475345, 0.60931754]
    np.testing.assert_allclose(target[0, 1:], [*by_distance, 0.58091497], atol=1e-7)


def test_predicted_tsm_is_cosines_of_projection_rows_and_prediction_columns():
    generator = torch.Generator().manual_seed(0)
    z, h = torch.randn(2, 3, 4, 5, generator=generator)
    cosines = predicted_tsm(z, h)
    for b in range(3):
        for i in range(4):
            for j in range(4):
                dot = sum(z[b, i, c] * h[b, j, c] for c in range(5))
                norms = z[b, i].norm() * h[b, j].norm() + 1e-8
                assert cosines[b, i, j].item() == pytest.approx((dot / norms).item(), abs=1e-6)


def test_gradient_flows_through_the_columns_only():
    z = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    predicted_tsm(z, torch.ones(1, 3, 4, requires_grad=True)).sum().backward()
    assert z.grad is None
    shared = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    predicted_tsm(shared, shared)[0, :, 1].sum().backward()  # column 1 reaches snippet 1 alone
    assert shared.grad[0, 1].abs().min() > 0
    assert shared.grad[0, [0, 2]].abs().max() == 0


def test_zero_features_give_zero_cosines_and_finite_gradients():
    h = torch.zeros(1, 2, 3, requires_grad=True)
    cosines = predicted_tsm(torch.zeros(1, 2, 3), h)
    assert cosines.abs().max() == 0
    cosines.sum().backward()
    assert h.grad.isfinite().all()


def test_loss_is_mean_cross_entropy():
    cosines = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(3)) * 1.8 - 0.9
    target = target_tsm(5, 4.0)
    total = 0.0
    for matrix in cosines:
        for c, t in zip(matrix.flatten().tolist(), target.flatten().tolist(), strict=True):
            p = (1 + c) / 2
            total -= t * math.log(p) + (1 - t) * math.log(1 - p)
    assert similarity_matching_loss(cosines, target).item() == pytest.approx(total / 75, abs=1e-6)


def test_extreme_similarities_are_replaced_without_gradient():
    just_inside = 1 - 2.0**-18  # p = 1 - 1.9e-6: beyond 1 - 1e-5, yet kept, unlike in a clamp
    cosines = torch.tensor([[[1.0, -1.0], [just_inside, 1 + 1e-6]]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [0.5, 0.25]])
    loss = similarity_matching_loss(cosines, target)
    inside, p = 1 - 1e-5, 1 - 2.0**-19
    expected = [
        -math.log(inside),
        -math.log(inside),
        -0.5 * math.log(p) - 0.5 * math.log(1 - p),
        -0.25 * math.log(inside) - 0.75 * math.log(1e-5),
    ]
    assert loss.item() == pytest.approx(sum(expected) / 4, rel=1e-3)
    loss.backward()
    assert cosines.grad[0, 0].tolist() == [0.0, 0.0]
    assert cosines.grad[0, 1, 1] == 0
    kept = (p - 0.5) / (p * (1 - p)) / 2 / 4
    assert cosines.grad[0, 1, 0].item() == pytest.approx(kept, rel=1e-3)


def test_nan_passes_through_to_the_caller():
    assert similarity_matching_loss(torch.full((1, 2, 2), math.nan), target_tsm(2, 16.0)).isnan()


def test_landmarks():
    target = target_tsm(8, 16.0)
    floor, plateau = loss_landmarks(target, has_predictor=True)
    assert (round(floor, 4), round(plateau, 4)) == (0.2777, 0.3854)
    assert round(loss_landmarks(target, has_predictor=False)[1], 4) == 0.3668
    assert similarity_matching_loss(2 * target[None] - 1, target).item() == pytest.approx(
        floor, abs=1e-4
    )
    constants = torch.linspace(-0.99, 0.99, 397)
    losses = [similarity_matching_loss(c.expand(1, 8, 8), target).item() for c in constants]
    assert min(losses) == pytest.approx(plateau, abs=1e-4)
    assert similarity_matching_loss(torch.zeros(1, 8, 8), target).item() == pytest.approx(
        0.6931, abs=1e-4
    )
    assert similarity_matching_loss(torch.ones(1, 8, 8), target).item() == pytest.approx(
        1.490, abs=1e-3
    )
