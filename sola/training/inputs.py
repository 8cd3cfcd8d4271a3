"""Everything one run reads, found and checked before anything is computed."""

import contextlib
from dataclasses import dataclass

import numpy as np

from sola.config import Config
from sola.data.features import FeatureFile
from sola.data.labels import has_labels, label_folder, read_label, read_labels
from sola.data.synthetic import write_synthetic
from sola.data.videos import SPLITS, BadFiles, Split, open_split, subset_of, videos_to_draw
from sola.errors import DataError
from sola.probe.protocols import check_probed
from sola.probe.snippets import ProbeVideos


@dataclass(frozen=True)
class Inputs:
    """Everything a run reads: training videos, the probe's videos, the videos to draw."""

    training: Split
    videos: list[FeatureFile]  # of the training split, longer than a window
    probed: tuple[ProbeVideos, ProbeVideos] | None  # training, validation; None without labels
    drawn: dict[str, FeatureFile]
    drawn_labels: dict[str, np.ndarray]
    bad_files: BadFiles

    @property
    def skipped(self) -> dict[str, list[str]]:
        """For the records: the files that were left out, if any."""
        return {"skipped": sorted(self.bad_files.skipped)} if self.bad_files.skipped else {}


def open_inputs(config: Config) -> Inputs:
    """Find and check everything the run reads, and say what is there.

    The synthetic data set is written first where it is asked for.
    """
    if config.synthetic:
        write_synthetic(config.data_root, config.label_base, feature_dim=config.in_feature_dim)
    bad_files = BadFiles(config.on_bad_file)
    training, validation = (
        open_split(config.data_root, split, config.in_feature_dim, bad_files) for split in SPLITS
    )
    for split in (training, validation):
        snippets = sum(split.lengths.values())
        missing = f", {split.missing} listed without a file" if split.missing else ""
        print(f"{split.name}: {len(split.videos)} videos, {snippets} snippets{missing}")
    drawn = videos_to_draw(config.visualizing_dir, validation, config.in_feature_dim, bad_files)
    inputs = Inputs(
        training=training,
        videos=_longer_than_a_window(config, training),
        probed=_open_probed(config, training, validation, bad_files),
        drawn=drawn,
        drawn_labels=_labels_to_draw(config, drawn),
        bad_files=bad_files,
    )
    bad_files.report()
    return inputs


def _longer_than_a_window(config: Config, training: Split) -> list[FeatureFile]:
    window = config.sampling_duration
    videos = [video for video in training.videos.values() if video.length > window]
    short = len(training.videos) - len(videos)
    if short:
        print(f"{short} training videos are too short to train on (T <= {window})")
    if not videos:
        raise DataError(
            f"{config.data_root}/training: no video is longer than sampling_duration, {window} "
            "snippets"
        )
    return videos


def _open_probed(
    config: Config, training: Split, validation: Split, bad_files: BadFiles
) -> tuple[ProbeVideos, ProbeVideos] | None:
    """The videos and labels of the linear probe; None, saying so, when there are no labels."""
    if not has_labels(config.label_base):
        print(f"no labels in {config.label_base}: the linear probe is skipped")
        return None
    probed = []
    for split in (training, validation):
        subset = subset_of(config.data_root, split, config.seed, bad_files)
        videos = {video: split.videos[video] for video in subset}
        labels = read_labels(label_folder(config.label_base, split.name), videos, bad_files)
        if not labels:
            raise DataError(f"{config.label_base}: no usable {split.name} label file")
        files = [videos[video] for video in labels]
        probed.append(ProbeVideos(split.name, files, list(labels.values())))
    check_probed(probed, config)
    return tuple(probed)


def _labels_to_draw(config: Config, drawn: dict[str, FeatureFile]) -> dict[str, np.ndarray]:
    """Labels of those drawn videos that have fitting ones."""
    labels = {}
    for split in SPLITS:
        for video, array in drawn.items():
            with contextlib.suppress(DataError):
                path = label_folder(config.label_base, split) / f"{video}.npy"
                labels[video] = read_label(path, array.length) == 1
    return labels
