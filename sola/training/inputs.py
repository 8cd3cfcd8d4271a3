"""Everything one run reads, found and checked before anything is computed."""

import contextlib
from dataclasses import dataclass, field

import numpy as np

from sola.config import Config
from sola.data.features import BadFileError, DataError, FeatureFile
from sola.data.videos import (
    SPLITS,
    BadFiles,
    Split,
    has_labels,
    label_folder,
    open_split,
    read_labels,
    subset_of,
    videos_to_draw,
)
from sola.probe.logistic import ProbeVideos
from sola.system.cli import random_generator


@dataclass(frozen=True)
class RunData:
    """Everything a run reads: training videos, the probe's videos, the videos to draw."""

    training: Split
    videos: list[FeatureFile]  # of the training split, longer than a window
    probe: tuple[ProbeVideos, ProbeVideos] | None  # training, validation; None without labels
    drawn: dict[str, FeatureFile]
    drawn_labels: dict[str, np.ndarray]
    bad_files: BadFiles = field(default_factory=BadFiles)

    @property
    def skipped(self) -> dict[str, list[str]]:
        """For the records: the files that were left out, if any."""
        return {"skipped": sorted(self.bad_files.skipped)} if self.bad_files.skipped else {}


def open_data(config: Config) -> RunData:
    """Find and check everything the run reads, and say what is there."""
    bad_files = BadFiles(config.on_bad_file)
    training, validation = (
        open_split(config.data_root, split, config.in_feature_dim, bad_files) for split in SPLITS
    )
    videos = [v for v in training.videos.values() if v.length > config.sampling_duration]
    for split in (training, validation):
        snippets = sum(split.lengths.values())
        missing = f", {split.missing} listed without a file" if split.missing else ""
        print(f"{split.name}: {len(split.videos)} videos, {snippets} snippets{missing}")
    short = len(training.videos) - len(videos)
    if short:
        print(
            f"{short} training videos are too short to train on (T <= {config.sampling_duration})"
        )
    if not videos:
        raise DataError(
            f"{config.data_root}/training: no video is longer than sampling_duration, "
            f"{config.sampling_duration} snippets"
        )
    drawn = videos_to_draw(config.visualizing_dir, validation, config.in_feature_dim, bad_files)
    probe = open_probe(config, training, validation, bad_files)
    bad_files.report()
    return RunData(
        training=training,
        videos=videos,
        probe=probe,
        drawn=drawn,
        drawn_labels=labels_to_draw(config, drawn),
        bad_files=bad_files,
    )


def open_probe(
    config: Config, training: Split, validation: Split, bad_files: BadFiles
) -> tuple[ProbeVideos, ProbeVideos] | None:
    """The videos and labels of the linear probe; None, saying so, when there are no labels."""
    if not has_labels(config.label_base):
        print(f"no labels in {config.label_base}: the linear probe is skipped")
        return None
    probe = []
    for split in (training, validation):
        subset = subset_of(config.data_root, split, config.seed, bad_files)
        videos = {video: split.videos[video] for video in subset}
        labels = read_labels(label_folder(config.label_base, split.name), videos, bad_files)
        if not labels:
            raise DataError(f"{config.label_base}: no usable {split.name} label file")
        files = [videos[video] for video in labels]
        probe.append(ProbeVideos(split.name, files, list(labels.values())))
    training_videos, validation_videos = probe
    # drawing needs labels alone: what it refuses is refused here, not after epochs of training
    if config.eval_protocol == "sgd":
        for videos in probe:
            videos.groups(random_generator("check", config.seed))
    else:
        training_videos.draw(config.eval_snippets, config.seed)
        validation_videos.draw(config.eval_snippets_validation, config.seed)
    return training_videos, validation_videos


def labels_to_draw(config: Config, drawn: dict[str, FeatureFile]) -> dict[str, np.ndarray]:
    """Labels of those drawn videos that have fitting ones."""
    labels = {}
    for split in SPLITS:
        for video, array in drawn.items():
            with contextlib.suppress(BadFileError):
                labels |= read_labels(label_folder(config.label_base, split), {video: array})
    return labels
