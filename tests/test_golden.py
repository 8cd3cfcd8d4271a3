"""The original program's figures on closed-form inputs and weights, seven cases."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sola.config import Config
from sola.method.matching import Learner, SimilarityMatching, make_learner, training_step
from sola.method.module import encode_video
from sola.method.tsm import similarity_matching_loss, target_tsm
from sola.system.device import resolve_device

CASES = json.loads((Path(__file__).parent / "golden.json").read_text())["cases"]
OF_THE_CASE = ("batch", "steps", "alpha0")
SHARE = {"cpu": 1e-5, "cuda": 1e-4}  # of weights: AdamW steps by a gradient's rounding, too
DEVICES = [*SHARE] if torch.cuda.is_available() else ["cpu"]


def wave(shape, phase: float, scale: float) -> torch.Tensor:
    k = np.arange(math.prod(shape), dtype=np.float64)
    values = scale * np.sin(0.7 * k + phase + 0.013 * k**1.5)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def fill(network: nn.Module, phase: float) -> None:
    with torch.no_grad():
        for j, parameter in enumerate(network.parameters()):
            shape = parameter.shape
            fan = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
            parameter.copy_(wave(shape, phase + j, fan**-0.5))


def open_case(case, device: str = "cpu") -> tuple[Config, Learner]:
    settings = {key: value for key, value in case["config"].items() if key not in OF_THE_CASE}
    config = Config(exp_name="golden", **settings)
    learner = make_learner(config, resolve_device(device))
    model = learner.model
    fill(model.module, 0.1)
    fill(model.projector, 3.3)
    fill(model.predictor, 5.9)
    with torch.no_grad():
        model.module.alpha.fill_(case["config"]["alpha0"])
    return config, learner


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_training_and_encoding_match_the_original(case, device):
    config, learner = open_case(case, device)
    model = learner.model
    shape = (case["config"]["batch"], config.sampling_duration, config.in_feature_dim)
    losses, alphas = [], []
    for step in range(case["config"]["steps"]):
        windows = wave(shape, 0.5 + step, 1.0).to(device)
        if step == 0:
            first_tsm = model(windows)[0].detach().cpu().numpy()
            np.testing.assert_allclose(first_tsm, case["tsm_first_step_sample0"], atol=1e-4)
        losses.append(training_step(learner, windows)["loss"].item())
        alphas.append(model.module.alpha.item())
    np.testing.assert_allclose(losses, case["losses"], atol=1e-5)
    np.testing.assert_allclose(alphas, case["alphas"], atol=1e-4)

    long = encode_video(model.module, wave((30, config.in_feature_dim), 9.0, 1.0).numpy())
    short = encode_video(model.module, wave((3, config.in_feature_dim), 2.0, 1.0).numpy())
    np.testing.assert_allclose(long[:2], case["encoded_30_first2rows"], atol=1e-4)
    np.testing.assert_allclose(long[-1], np.ravel(case["encoded_30_last"]), atol=1e-4)
    np.testing.assert_allclose(np.abs(long).sum(), case["encoded_30_abs_sum"], rtol=1e-5)
    np.testing.assert_allclose(short, case["encoded_3"], atol=1e-4)

    ours = {f"encoder.{name}": value for name, value in model.module.named_parameters()}
    ours |= {f"predictor.network.{name}": v for name, v in model.predictor.named_parameters()}
    for name, value in ours.items():
        figures = [value.sum().item(), value.abs().sum().item()]
        expected = case["final_weight_sum_and_abs_sum"][name]
        atol = max(1e-4, SHARE[device] * expected[1])
        np.testing.assert_allclose(figures, expected, atol=atol, err_msg=name)


def test_first_step_moves_alpha_alone_inside_the_module():
    config, learner = open_case(CASES[0])
    model = learner.model
    loss = similarity_matching_loss(
        model(wave((2, config.sampling_duration, config.in_feature_dim), 0.5, 1.0)),
        target_tsm(config.tsm_size, config.oracle_coef),
    )
    loss.backward()
    moved = {name for name, p in model.module.named_parameters() if p.grad.abs().max() > 0}
    assert moved == {"alpha"}


def test_canonical_parameter_count():
    model = SimilarityMatching(Config(exp_name="canonical"))
    assert sum(p.numel() for p in model.module.parameters()) == 6_556_673
