"""YAML -> Config: every shipped YAML, and one bad value for each rule."""

import dataclasses
import re

import pytest
import yaml
from helpers import REPOSITORY, TINY

from sola.config import Config, ConfigError, load_config

YAMLS = sorted((REPOSITORY / "yamls").glob("*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=[path.name for path in YAMLS])
def test_shipped_yamls_load_and_survive_a_round_trip(path, tmp_path):
    config = load_config(path)
    assert config.exp_name == path.stem
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config


def test_canonical_yaml_states_every_key_with_its_default():
    path = REPOSITORY / "yamls" / "hacs_canonical.yaml"
    assert load_config(path) == Config(exp_name="hacs_canonical")
    stated = set(yaml.safe_load(path.read_text())) - {"eval_eval_iter"}
    assert stated == {field.name for field in dataclasses.fields(Config)}


def test_an_empty_name_is_refused_from_python_too():
    with pytest.raises(ConfigError, match="exp_name"):
        Config(exp_name="")


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(**TINY).epoch = 3


def load(tmp_path, text, overrides=()):
    (tmp_path / "c.yaml").write_text(text)
    return load_config(tmp_path / "c.yaml", overrides)


def test_numbers_without_a_dot_are_numbers(tmp_path):
    config = load(tmp_path, "exp_name: a\nlearning_rate: 1e-4\noracle_coef: 8\n")
    assert (config.learning_rate, config.oracle_coef) == (1e-4, 8.0)


def test_overrides_win(tmp_path):
    config = load(tmp_path, "exp_name: a\nepoch: 5\n", ["epoch=7", "learning_rate=3e-3"])
    assert (config.epoch, config.learning_rate) == (7, 3e-3)


@pytest.mark.parametrize("name", ["2026-01-02", "'12'", "0123", "1e3", "1_000", "yes", "4:05"])
def test_whatever_looks_like_something_else_is_a_name(tmp_path, name):
    assert load(tmp_path, f"exp_name: {name}\n").exp_name == name.strip("'")
    assert load(tmp_path, "exp_name: a\n", [f"exp_name={name}"]).exp_name == name.strip("'")


def test_paths_may_have_home_and_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    config = load(tmp_path, "exp_name: $DATA\ndata_root: ~/rgb,$DATA/flow\n", ["label_base=~/l"])
    assert config.data_root == "/home/me/rgb,/data/flow"
    assert (config.label_base, config.exp_name) == ("/home/me/l", "$DATA")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("exp_name: a\nepoch 150\nseed: 1\n", 2),
        ("epoch 150\nexp_name: a\n", 1),
        ("exp_name: a\n# about it\n\nepoch 150\n", 4),
    ],
)
def test_a_missing_colon_names_its_line(tmp_path, text, line):
    with pytest.raises(ConfigError, match=f"line {line} has no colon, 'epoch 150'"):
        load(tmp_path, text)


def test_a_number_is_never_octal(tmp_path):
    config = load(tmp_path, "exp_name: a\nseed: 010\nuse_dissim_head: off\n", ["epoch=011"])
    assert (config.seed, config.epoch, config.use_dissim_head) == (10, 11, False)


BROKEN = {  # YAML line -> what the error must name
    "epohc: 3": "epohc; did you mean epoch",
    "lr: 3": "lr; did you mean learning_rate",
    "quux: 3": "unknown key quux",
    "epoch: 3\nepoch: 4": "epoch is given twice",
    "epoch: many": "epoch is many; must be a whole number",
    "epoch: 1.5": "epoch",
    "epoch:": "epoch is empty",
    "epoch: true": "epoch is true",
    "epoch: 0": "epoch is 0",
    "epoch: 1000001": "epoch is 1000001; must lie in 1..1000000",
    "kernel_size1: 1001": "kernel_size1 is 1001",
    "kernel_size2: 1001": "kernel_size2 is 1001",
    "dilation1: 1000": "dilation1 is 1000",
    "dilation2: 1000": "dilation2 is 1000",
    "learning_rate: .nan": "learning_rate",
    "learning_rate: .inf": "learning_rate",
    "learning_rate: 0": "learning_rate is 0",
    "learning_rate: fast": "learning_rate is fast",
    "learning_rate: true": "learning_rate is true",
    "use_dissim_head: 1": "use_dissim_head is 1; must be true or false",
    "data_root: ''": "data_root is empty",
    "exp_name: ~": "exp_name",
    "epoch: 1:30": "epoch is 1:30; must be a whole number",
    'data_root: "a\\0b"': "data_root is a?b; it holds a NUL character",
    'label_base: "\\ud800"': "",
    "batch_size: 0": "batch_size is 0",
    "mlp_layer_num: 4": "mlp_layer_num is 4",
    "eval_momentum: 1.0": "eval_momentum is 1.0",
    "seed: -1": "seed",
    "kernel_size1: 4": "kernel_size1 is 4; must be odd",
    "visualizing_fps: 1.0e-320": "fps is 1e-320; must be 0, not given, or at least",  # of old YAMLs
    "fps: 2\nvisualizing_fps: 2": "fps is given twice",
    "kernel_size2: 2": "kernel_size2 is 2; must be odd",
    "step_start: 9": "sampling_duration",
    "sampling_duration: 18": "sampling_duration is 18",
    "out_feature_dim: 1024": "out_feature_dim is 1024",
    "dissim_proj_out: 1024": "dissim_proj_out is 1024",
    "projection: linear": "projection is linear",
    "device: gpu": "device is gpu",
    "eval_protocol: svm": "eval_protocol is svm",
    "eval_protocol: sgd\neval_epoch: 5": "eval_epoch is 5",
    "synthetic: true": "data_root",
    "exp_name: a/b": "exp_name",
    "epoch: 0x" + 5000 * "f": "epoch is 0xfff",
    "learning_rate: 0x" + 5000 * "f": "learning_rate is 0xfff",
    "eval_lr: " + 500 * "1:" + "1.5": "eval_lr is 1:1:1",
    "synthetic: true\ndata_root: /x\nlabel_base: /y": "data_root is /x",
    "synthetic: true\ndata_root: a/b,a/c\nlabel_base: a/y": "data_root is a/b,a/c",
    "on_bad_file: ignore": "on_bad_file is ignore; must be error or skip",
    "exp_name: ..": "exp_name",
    "exp_name: state": "exp_name",
    "epoch: [1, 2]": "line",
    "epoch: {a: 1}": "line",
    "epoch: &x 3\nseed: *x": "line",
    "epoch: !!python/object/apply:os.system [ls]": "line",
    "epoch: 3\n---\nseed: 1": "line",
    "- 3": "line",
    "epoch: 'a": "not valid YAML",
    f"epoch: {'9' * 5000}": "epoch",
    "epoch: " + "[" * 5000: "",
}


@pytest.mark.parametrize("line", BROKEN, ids=[line[:30] for line in BROKEN])
def test_broken_settings_are_refused_in_one_line(tmp_path, line):
    name = "" if line.startswith(("exp_name", "-")) else "exp_name: a\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, name + line + "\n")
    message = str(caught.value)
    assert "c.yaml" in message
    assert BROKEN[line] in message
    assert "\n" not in message
    assert len(message) < 400


def test_smallest_window_that_holds_the_gathered_positions_is_accepted(tmp_path):
    assert load(tmp_path, "exp_name: a\nsampling_duration: 19\n").gathered_positions[-1] == 18


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "epoch: 3\n", "a: " + "x" * 200_000, "just text"]
)
def test_files_without_settings_are_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=re.escape("c.yaml")):
        load(tmp_path, text)


def test_binary_and_missing_files_are_refused(tmp_path):
    (tmp_path / "c.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="absent"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "override", ["epoch", "epoch=", "=3", "epoch=3\nseed=4", "epoch: 3", "a={"]
)
def test_broken_overrides_are_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="command line"):
        load(tmp_path, "exp_name: a\n", [override])
