"""The gathered computation against the full convolution, and loading."""

import numpy as np
import pytest
import torch

from sola.config import Config
from sola.method.module import SimilarityMatching, SoLaModule, _rows_at, linear, load_module
from sola.method.weights import CheckpointError

SHAPES = [((5, 1), (1, 1)), ((3, 3), (2, 1)), ((1, 1), (1, 1)), ((7, 5), (3, 2)), ((1, 3), (1, 4))]


def open_module(kernel_sizes, dilations, seed=0) -> SoLaModule:
    torch.manual_seed(seed)
    module = SoLaModule(6, 5, kernel_sizes, dilations)
    torch.nn.init.constant_(module.alpha, 0.7)
    return module


def full_convolution(module: SoLaModule, x: np.ndarray) -> np.ndarray:
    """Slow twin: [T, C] -> [T, C], one output at a time, zeros outside the video."""

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
def test_module_and_gathered_positions_match_the_slow_twin(kernel_sizes, dilations, length):
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
    gradients = []
    for y in (module(x)[:, positions], module(x, positions=positions)):
        module.zero_grad()
        (y**2).sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    for full, gathered in zip(*gradients, strict=True):
        np.testing.assert_allclose(gathered, full, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel_sizes", "dilations"), SHAPES)
def test_rows_within_reach_are_enough(kernel_sizes, dilations):
    module = open_module(kernel_sizes, dilations)
    x = torch.randn(1, 80, 6, generator=torch.Generator().manual_seed(3))
    positions = [1, 40, 78]
    times = [time for time in module.input_times(positions) if 0 <= time < 80]
    assert len(times) < 80
    with torch.no_grad():
        partial = module(x[:, times], positions=positions, times=times)
        np.testing.assert_allclose(partial, module(x)[:, positions], atol=1e-5)


def test_no_positions_give_no_rows():
    assert open_module((5, 1), (1, 1))(torch.zeros(2, 7, 6), positions=[]).shape == (2, 0, 6)


def test_positions_may_be_a_tensor():
    module, x = open_module((5, 1), (1, 1)), torch.randn(2, 7, 6)
    assert torch.equal(module(x, positions=torch.tensor([3, 1])), module(x, positions=[3, 1]))


@pytest.mark.parametrize(("rows", "in_dim", "out_dim"), [(300, 160, 96), (7, 5, 3), (0, 5, 3)])
def test_linear_is_that_of_pytorch(rows, in_dim, out_dim):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, rows, in_dim), (out_dim, in_dim), (out_dim,)]
    for layout in (lambda x: x, lambda x: x.transpose(0, 1)):
        results = []
        for function in (torch.nn.functional.linear, linear):
            generator.manual_seed(0)
            inputs = [torch.randn(s, generator=generator, requires_grad=True) for s in shapes]
            y = function(layout(inputs[0]), *inputs[1:])
            (y**2).sum().backward()
            results.append([y.detach(), *(x.grad for x in inputs)])
        for expected, actual in zip(*results, strict=True):
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


def test_a_tap_of_time_major_windows_is_no_copy():
    module = open_module((5, 1), (1, 1))
    positions = range(4, 19, 2)
    times = module.input_times(positions)
    assert sorted(times) == list(range(2, 21))
    rows = torch.zeros(len(times), 3, 6)
    for tap in range(-2, 3):
        seen = _rows_at(rows, times, tuple(position + tap for position in positions))
        assert seen.is_contiguous()
        assert seen.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()


@pytest.mark.parametrize(("kernel_sizes", "dilations"), SHAPES)
def test_time_major_windows_give_the_same_gradients(kernel_sizes, dilations):
    module = open_module(kernel_sizes, dilations)
    positions = [4, 7, 10, 13]
    times = [time for time in module.input_times(positions) if 0 <= time < 15]
    x = torch.randn(3, 15, 6, generator=torch.Generator().manual_seed(4))
    rows = x[:, times].transpose(0, 1).contiguous().transpose(0, 1)
    gradients = []
    for y in (module(x)[:, positions], module(rows, positions, times)):
        module.zero_grad()
        (y**2).sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
        for p in module.parameters():  # fused optimisers go through memory, not through indices
            strides = zip(p.shape, p.stride(), p.grad.stride(), strict=True)
            assert all(size == 1 or a == b for size, a, b in strides)
    for full, gathered in zip(*gradients, strict=True):
        np.testing.assert_allclose(gathered, full, rtol=1e-4, atol=1e-5)


def test_positions_outside_are_refused():
    module = open_module((5, 1), (1, 1))
    for position in (-1, 7):
        with pytest.raises(IndexError):
            module(torch.zeros(1, 7, 6), positions=[position])


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


@pytest.mark.parametrize("damage", ["missing key", "foreign key", "shape", "nan", "text", "list"])
def test_foreign_checkpoints_are_refused(tmp_path, damage):
    weights = open_module((5, 1), (1, 1)).state_dict()
    content = dict(weights)
    if damage == "missing key":
        del content["conv_network.2.bias"]
    elif damage == "foreign key":
        content["projector.weight"] = torch.zeros(2)
    elif damage == "shape":
        content["conv_network.4.weight"] = torch.zeros(3, 5, 1)
    elif damage == "nan":
        content["alpha"] = torch.tensor([float("nan")])
    elif damage == "list":
        content = list(weights.values())
    path = tmp_path / "m.pt"
    torch.save(content, path)
    if damage == "text":
        path.write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"m\.pt"):
        load_module(path)
