"""YAML -> Config: every key typed, checked at the door and frozen."""

import contextlib
import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sola.errors import ConfigError, check_path, expanded, shown
from sola.system.flat_yaml import cast, read_flat_yaml, split_setting

PATHS = {
    "data_root", "label_base", "visualizing_dir", "visualizing_save_path", "model_save_path",
    "feature_save_path", "annotations",
}  # fmt: skip
SHORT = {"lr": "learning_rate", "bs": "batch_size"}  # as others call them
IGNORED_KEYS = {"eval_eval_iter"}  # has no effect in the original either
RENAMED_KEYS = {"visualizing_fps": "fps"}  # of earlier versions
SMALLEST = {  # whole numbers else: 1; others: above 0
    "seed": 0, "num_workers": 0, "step_start": 0, "tsm_size": 2, "mlp_layer_num": 0,
    "eval_momentum": 0.0, "fps": 0.0, "clip": 0.0, "feat_stride": 0, "num_frames": 0,
    "video_fps": 0.0,
}  # fmt: skip
CHOICES = {
    "precision": ("fp32", "tf32", "bf16"),
    "storage": ("auto", "files", "device"),
    "storage_dtype": ("float32", "float16"),
    "on_bad_file": ("error", "skip"),
    "projection": ("identity",),
    "eval_protocol": ("logistic_regression", "sgd"),
}
LARGEST = {
    "seed": 2**63 - 1, "mlp_layer_num": 3, "eval_momentum": 0.999999, "num_workers": 1024,
    "epoch": 10**6, "kernel_size1": 999, "kernel_size2": 999, "dilation1": 999, "dilation2": 999,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting of a run. Defaults are the canonical HACS values; yamls/ says what each means.

    Raises ConfigError when a value is out of range or two contradict each other.
    """

    exp_name: str
    # files
    data_root: str = "HACS_DATA"
    label_base: str = "evaluation"
    visualizing_dir: str = "visualizing"
    visualizing_save_path: str = "visualizing"
    model_save_path: str = "models"
    feature_save_path: str = "transformed_features"
    synthetic: bool = False
    on_bad_file: str = "error"
    annotations: str = ""
    # time of the snippets: 0 where not given, see data/times.py
    fps: float = 2.0
    clip: float = 0.0
    feat_stride: int = 0
    num_frames: int = 0
    video_fps: float = 0.0
    # windows and target
    sampling_duration: int = 23
    tsm_size: int = 8
    step: int = 2
    step_start: int = 4
    oracle_coef: float = 16.0
    # SoLa module
    projection: str = "identity"
    in_feature_dim: int = 2048
    out_feature_dim: int = 2048
    network_hidden_unit: int = 512
    kernel_size1: int = 5
    dilation1: int = 1
    kernel_size2: int = 1
    dilation2: int = 1
    # projector and predictor
    mlp_layer_num: int = 0
    mlphead_hidden_unit: int = 2048
    use_dissim_head: bool = True
    dissim_proj_hidden_unit: int = 512
    dissim_proj_out: int = 2048
    # training
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    storage: str = "auto"
    storage_dtype: str = "float32"
    num_workers: int = 16
    batch_size: int = 256
    epoch: int = 150
    learning_rate: float = 1e-4
    saving_epoch: int = 10
    visualizing_step: int = 25
    # linear probe
    eval_protocol: str = "logistic_regression"
    eval_snippets: int = 50_000
    eval_snippets_validation: int = 20_000
    eval_batch_size: int = 256
    eval_lr: float = 0.01
    eval_momentum: float = 0.9
    eval_epoch: int = 16
    # second probe, with temporal context
    eval_head: bool = False
    eval_head_seeds: int = 3
    eval_head_videos: int = 200
    eval_head_videos_validation: int = 60

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is str:
                try:
                    check_path(value)
                except ValueError as error:
                    raise ConfigError(f"{field.name} is {shown(value)}; it {error}") from error
            if field.type in (int, float):
                smallest = SMALLEST.get(field.name, 1 if field.type is int else 1e-12)
                largest = LARGEST.get(field.name, 10**9)
                if not smallest <= value <= largest:  # also refuses NaN
                    raise ConfigError(f"{field.name} is {value}; must lie in {smallest}..{largest}")
        for key, holds, rule in self._rules():
            if not holds:
                raise ConfigError(f"{key} is {shown(getattr(self, key))}; {rule}")

    def _rules(self) -> list[tuple[str, bool, str]]:
        """Key, whether its rule holds, and the rule."""
        last_position = self.step_start + self.step * (self.tsm_size - 1)
        name_is_plain = self.exp_name.isprintable() and re.match(r"[^./\\][^/\\]*$", self.exp_name)
        own_folder = Path(self.data_root).parent
        has_own_folder = own_folder.name and own_folder == Path(self.label_base).parent
        fps = self.video_fps / self.feat_stride if self.feat_stride else self.fps
        return [
            *((key, getattr(self, key) in choices, f"must be {' or '.join(choices)}")
              for key, choices in CHOICES.items()),
            ("exp_name", bool(name_is_plain) and self.exp_name != "state",
             "must be one plain folder name (not state: state_*.pt are training states)"),
            ("device", bool(re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device)),
             "must be auto, cpu, cuda or cuda:N"),
            ("storage_dtype", self.storage_dtype == "float32" or self.storage == "device",
             "needs storage: device, since it changes what the windows hold"),
            ("eval_epoch", self.eval_protocol != "sgd" or self.eval_epoch >= 6,
             "eval_protocol: sgd needs at least 6 passes"),
            *((key, not 0 < getattr(self, key) < 1e-3, "must be 0, not given, or at least 0.001")
              for key in ("fps", "clip", "video_fps")),
            *((key, self.feat_stride > 0 or getattr(self, key) == 0, "needs feat_stride")
              for key in ("num_frames", "video_fps")),
            ("clip", self.feat_stride == 0 or self.clip == 0,
             "is num_frames / video_fps where feat_stride is given"),
            ("fps", math.isclose(self.fps, fps, rel_tol=1e-3),
             f"must be {fps:g} with feat_stride, that is video_fps / feat_stride"),
            ("kernel_size1", self.kernel_size1 % 2 == 1, "must be odd"),
            ("kernel_size2", self.kernel_size2 % 2 == 1, "must be odd"),
            ("sampling_duration", last_position < self.sampling_duration,
             f"must exceed the last gathered position, step_start + step * (tsm_size - 1) = "
             f"{last_position}"),
            ("out_feature_dim", self.out_feature_dim == self.in_feature_dim,
             f"must equal in_feature_dim, {self.in_feature_dim}"),
            ("dissim_proj_out",
             self.dissim_proj_out == self.out_feature_dim or not self.use_dissim_head,
             f"with use_dissim_head must equal out_feature_dim, {self.out_feature_dim}"),
            ("visualizing_dir", Path(self.visualizing_dir) != self.picture_folder,
             "must not be where the pictures of this run go"),
            ("data_root", not self.synthetic or bool(has_own_folder and "," not in self.data_root),
             "with synthetic: true must be one folder, beside label_base in a folder of their own"),
        ]  # fmt: skip

    @property
    def gathered_positions(self) -> list[int]:
        """Positions of a window that are compared, L of them."""
        return [self.step_start + self.step * i for i in range(self.tsm_size)]

    @property
    def target(self) -> dict[str, Any]:
        """What target_tsm is called with."""
        return {"tsm_size": self.tsm_size, "oracle_coef": self.oracle_coef}

    @property
    def kernel_sizes(self) -> tuple[int, int]:
        return self.kernel_size1, self.kernel_size2

    @property
    def dilations(self) -> tuple[int, int]:
        return self.dilation1, self.dilation2

    @property
    def run_folder(self) -> Path:
        """Folder of checkpoints, resolved YAML, metrics and training state."""
        return Path(self.model_save_path) / self.exp_name

    @property
    def metrics_file(self) -> Path:
        return self.run_folder / "metrics.jsonl"

    @property
    def picture_folder(self) -> Path:
        return Path(self.visualizing_save_path) / self.exp_name

    def model_file(self, epoch: int) -> Path:
        """Checkpoint of the SoLa module after an epoch."""
        return self.run_folder / f"{self.exp_name}_{epoch}.pt"

    def to_yaml(self) -> str:
        """The resolved YAML: all keys, readable by load_config."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a YAML; `overrides` are KEY=VALUE strings that win over it.

    Touches nothing else on disk. Raises ConfigError, naming file and key.
    """
    pairs = read_flat_yaml(path)
    with _naming(path):
        settings = _settings(pairs)
    with _naming("command line"):
        settings |= _settings(map(split_setting, overrides))
    with _naming(f"{path} and command line" if overrides else path):
        if "exp_name" not in settings:
            raise ConfigError("exp_name is missing")
        return Config(**settings)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with KEY=VALUE settings that win over it. Raises ConfigError."""
    with _naming("command line"):
        return dataclasses.replace(config, **_settings(map(split_setting, overrides)))


@contextlib.contextmanager
def _naming(origin: str | Path) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _settings(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Typed settings from key and text pairs; refuses unknown and repeated keys."""
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    settings = {}
    for given, text in pairs:
        key = RENAMED_KEYS.get(given, given)
        if key in settings:
            raise ConfigError(f"{shown(key)} is given twice")
        if key not in types and key not in IGNORED_KEYS:
            nearest = difflib.get_close_matches(key, types, n=1, cutoff=0.5)
            nearest = [SHORT[key.lower()]] if key.lower() in SHORT else nearest
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(f"unknown key {shown(key)}{hint}")
        is_text = key in IGNORED_KEYS or (key == "annotations" and not text)
        text = ",".join(map(expanded, text.split(","))) if key in PATHS else text
        settings[key] = text if is_text else cast(key, types[key], text)
    return {key: value for key, value in settings.items() if key in types}


def reach_note(config: Config) -> list[str]:
    """A line where the module's outer gathered positions see beyond their window."""
    reach = sum(k // 2 * d for k, d in zip(config.kernel_sizes, config.dilations, strict=True))
    first, *_, last = config.gathered_positions
    around = min(first, config.sampling_duration - 1 - last)
    enough = f"step_start={reach} sampling_duration={last - first + 2 * reach + 1}"
    line = (
        f"note: the module's reach of {reach} snippets exceeds the {around} around the gathered "
        "positions: the outer ones see zero padding, which tells them where they are (loss near "
        f"the floor, worst features); take {enough} or more, or smaller kernels"
    )
    return [line] if reach > around else []
