"""The gathered computation against the full convolution, and both against a slow reference."""

import numpy as np
import pytest
import torch

from sola.config import Config
from sola.export.encoder import moving_average
from sola.method.matching import SimilarityMatching
from sola.method.module import SoLaModule, encode_video, in_blocks, lay_out_taps
from sola.method.weights import load_module

SHAPES = [((5, 1), (1, 1)), ((3, 3), (2, 1)), ((1, 1), (1, 1)), ((7, 5), (3, 2)), ((1, 3), (1, 4))]


def open_module(kernel_sizes, dilations, seed=0) -> SoLaModule:
    torch.manual_seed(seed)
    module = SoLaModule(6, 5, kernel_sizes, dilations)
    torch.nn.init.constant_(module.alpha, 0.7)
    return module


def full_convolution(module: SoLaModule, x: np.ndarray) -> np.ndarray:
    """Slow reference: [T, C] -> [T, C], one output at a time, zeros outside the video."""

    def conv(values, layer):
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        kernel, dilation = layer.kernel_size[0], layer.dilation[0]
        out = np.tile(bias, (len(values), 1))
        for t in range(len(values)):
            for tap in range(kernel):
                source = t + (tap - kernel // 2) * dilation
                if 0 <= source < len(values):
                    out[t] += weight[:, :, tap] @ values[source]
        return out

    first, _, second, _, last = module.conv_network
    hidden = np.maximum(conv(x, first), 0)
    hidden = np.maximum(conv(hidden, second), 0)
    return x + np.tanh(module.alpha.item()) * conv(hidden, last)


@pytest.mark.parametrize(("kernel_sizes", "dilations"), SHAPES)
@pytest.mark.parametrize("length", [1, 2, 4, 23])
def test_module_and_gathered_positions_match_a_slow_reference(kernel_sizes, dilations, length):
    module = open_module(kernel_sizes, dilations)
    x = np.random.default_rng(1).standard_normal((2, length, 6))
    expected = np.stack([full_convolution(module, video) for video in x])
    windows = torch.from_numpy(x).float()
    with torch.no_grad():
        np.testing.assert_allclose(module(windows), expected, atol=1e-5)
        for positions in ([0], [length - 1], list(range(length))[::-1], [0, length // 2]):
            gathered = module(windows, positions=positions)
            np.testing.assert_allclose(gathered, expected[:, positions], atol=1e-5)


@pytest.mark.parametrize(("kernel_sizes", "dilations"), SHAPES)
def test_gathered_gradients_match_the_full_convolution(kernel_sizes, dilations):
    module = open_module(kernel_sizes, dilations)
    x = torch.randn(3, 11, 6, generator=torch.Generator().manual_seed(2))
    positions = [0, 3, 10]  # both borders, where zero padding reaches in
    lay_out_taps(module)
    gradients = []
    for y in (module(x)[:, positions], module(x, positions=positions)):
        module.zero_grad()
        (y**2).sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
        for p in module.parameters():  # fused optimisers go through memory, not through indices
            strides = zip(p.shape, p.stride(), p.grad.stride(), strict=True)
            assert all(size == 1 or a == b for size, a, b in strides)
    for full, gathered in zip(*gradients, strict=True):
        np.testing.assert_allclose(gathered, full, rtol=1e-4, atol=1e-5)


def test_no_positions_give_no_rows():
    assert open_module((5, 1), (1, 1))(torch.zeros(2, 7, 6), positions=[]).shape == (2, 0, 6)


def test_positions_may_be_a_tensor():
    module, x = open_module((5, 1), (1, 1)), torch.randn(2, 7, 6)
    assert torch.equal(module(x, positions=torch.tensor([3, 1])), module(x, positions=[3, 1]))


def test_positions_outside_are_refused():
    module = open_module((5, 1), (1, 1))
    for position in (-1, 7):
        with pytest.raises(IndexError):
            module(torch.zeros(1, 7, 6), positions=[position])


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((1, 9, 6), np.float32), r"takes a tensor \[B, T, C\], not ndarray"),
        (torch.zeros(9, 6), r"takes \[B, T, 6\], not \[9, 6\]"),
        (torch.zeros(1, 6, 9), r"takes \[B, T, 6\], not \[1, 6, 9\]"),
        (torch.zeros(1, 9, 6, dtype=torch.float64), "weights are torch.float32, the features are"),
        (torch.zeros(1, 9, 6, dtype=torch.int64), "the features are torch.int64"),
    ],
)
def test_what_is_no_batch_of_features_is_refused_in_a_sentence(x, words):
    module = open_module((5, 1), (1, 1))
    for positions in (None, [3]):
        with pytest.raises((TypeError, ValueError), match=words):
            module(x, positions)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="odd"):
        SoLaModule(4, 4, (4, 1))


def test_module_starts_as_the_identity():
    x = torch.randn(1, 9, 6)
    assert torch.equal(SoLaModule(6, 5)(x), x)


@pytest.mark.parametrize(("layers", "linears"), [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_projector_layers(layers, linears):
    config = Config(
        exp_name="x", in_feature_dim=6, out_feature_dim=6, dissim_proj_out=6, mlp_layer_num=layers
    )
    model = SimilarityMatching(config)
    widths = [m.weight.shape for m in model.projector if isinstance(m, torch.nn.Linear)]
    assert len(widths) == linears
    kinds = [type(layer).__name__ for layer in model.projector]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"][: max(0, 2 * layers - 1)]
    if layers == 3:
        assert [tuple(width) for width in widths] == [(2048, 6), (2048, 2048), (6, 2048)]
    assert model(torch.randn(2, 23, 6)).shape == (2, 8, 8)


def test_load_module_takes_sizes_from_the_weights(tmp_path):
    module = open_module((3, 5), (2, 3))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    loaded = load_module(tmp_path / "m.pt", dilations=(2, 3))
    assert not loaded.training
    x = torch.randn(1, 30, 6)
    with torch.no_grad():
        assert torch.equal(loaded(x), module(x))
    assert set(loaded.state_dict()) == {
        "alpha",
        *(f"conv_network.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")),
    }


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model"])
def test_weights_as_others_save_them_are_loaded_and_it_is_said(tmp_path, capsys, wrapped):
    module = open_module((5, 1), (1, 1))
    weights = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save(
        weights if wrapped == "plain" else {wrapped: weights, "epoch": 3}, tmp_path / "a.pth"
    )
    loaded = load_module(tmp_path / "a.pth")
    assert torch.equal(loaded.alpha, module.alpha)
    said = capsys.readouterr().out
    assert "module. before its names is left out" in said
    assert (f"its {wrapped} is taken" in said) == (wrapped != "plain")


def test_reach_is_how_far_an_input_still_matters():
    for (kernel_sizes, dilations), reach in zip(SHAPES, (2, 3, 0, 13, 4), strict=True):
        module, x = open_module(kernel_sizes, dilations), torch.zeros(1, 61, 6, requires_grad=True)
        assert module.reach == reach
        torch.nn.init.constant_(module.conv_network[0].bias, 1.0)  # no ReLU is in the way
        torch.nn.init.constant_(module.conv_network[2].bias, 9.0)
        module(x)[:, 30].sum().backward()
        seen = x.grad.abs().sum(dim=(0, 2)).nonzero()
        assert (seen.min(), seen.max()) == (30 - reach, 30 + reach)


@pytest.mark.parametrize(("kernel_sizes", "dilations"), SHAPES)
@pytest.mark.parametrize("length", [1, 7, 8, 61])
def test_a_long_video_is_encoded_in_blocks(monkeypatch, kernel_sizes, dilations, length):
    module = open_module(kernel_sizes, dilations)
    features = np.random.default_rng(0).standard_normal((length, 6)).astype(np.float32)
    with torch.no_grad():
        whole = module(torch.from_numpy(features)[None])[0].numpy()
    averaged = moving_average(features, 9)
    monkeypatch.setattr("sola.method.module.BLOCK", 7)
    np.testing.assert_allclose(encode_video(module, features), whole, rtol=1e-5, atol=1e-6)
    in_parts = in_blocks(lambda part: moving_average(part, 9), features, 4)
    np.testing.assert_allclose(in_parts, averaged, rtol=1e-5, atol=1e-6)


def test_encoding_keeps_shape_and_leaves_no_graph():
    module = SoLaModule(6, 4)
    for length in (1, 2, 50):
        features = np.random.default_rng(0).standard_normal((length, 6)).astype(np.float32)
        np.testing.assert_array_equal(encode_video(module, features), features)  # alpha is 0
