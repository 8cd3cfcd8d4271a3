"""What the benchmarks share: where a folder of theirs keeps its data, and the settings for it."""

from pathlib import Path

from sola.config import Config


def config_for(folder: Path, name: str, **settings: object) -> Config:
    """Settings that keep all of a benchmark in its folder, on the CPU and without pictures."""
    return Config(
        exp_name=name,
        data_root=str(folder / "data"),
        label_base=str(folder / "labels"),
        visualizing_dir=str(folder / "none"),
        model_save_path=str(folder / "models"),
        feature_save_path=str(folder / "dumped"),
        saving_epoch=1000,
        epoch=1000,
        device="cpu",
        **settings,
    )


def paths_of(folder: Path, split: str) -> list[Path]:
    return sorted((folder / "data" / split).glob("*.npy"))
