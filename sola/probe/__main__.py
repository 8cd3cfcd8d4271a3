"""Compare feature folders as a head sees them: python -m sola.probe --features=A --features=B"""

import sys

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sola.config import Config, load_config, override
from sola.data.annotations import Annotation, action_labels, match, read_annotations
from sola.data.features import FeatureFile
from sola.data.labels import label_folder, read_labels
from sola.data.times import Sampling, find_rate
from sola.data.videos import SPLITS, BadFiles, Split, open_split, subset_of
from sola.errors import DataError, SolaError, expanded
from sola.records import head_spread, with_spread
from sola.system.cli import ArgumentParser, add_timing_options, run_script, timing_settings

if TYPE_CHECKING:
    from sola.probe.scores import Scores

COLUMNS = {
    "ROC-AUC": "roc_auc", "accuracy": "accuracy", "balanced": "balanced_accuracy",
    "AP": "average_precision", "unscaled AUC": "roc_auc_unscaled", "classes": "class_accuracy",
}  # fmt: skip


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """What the user asks for."""
    parser = ArgumentParser(
        "Compare features: small heads with temporal context are trained and scored on each.",
        help="for seed, eval_head_*, label_base and time of the snippets; else the defaults",
    )
    parser.add_argument(
        "--features",
        action="append",
        type=expanded,
        required=True,
        help="folder with training/ and validation/ of <video>.npy; give it once for each",
    )
    parser.add_argument("--labels", help="folder of training_label/ and validation_label/")
    parser.add_argument("--annotations", metavar="JSON", help="in place of labels; adds classes")
    add_timing_options(parser)
    options = parser.parse(arguments)
    if options.labels and options.annotations:
        raise SolaError("--annotations: is in place of --labels; give one of them")
    options.settings += timing_settings(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.yaml_path:
        config = load_config(options.yaml_path, options.settings)
    else:
        config = override(Config(exp_name="probe", fps=0.0), options.settings)
    labels = options.labels or config.label_base
    annotations = read_annotations(options.annotations) if options.annotations else {}
    scores = compared(config, options.features, labels, annotations)
    print(*table(dict(scores)), sep="\n")


def compared(
    config: Config, roots: Sequence[str], label_base: str, annotations: dict[str, Annotation]
) -> Iterator[tuple[str, "Scores"]]:
    """Each feature folder and its scores, on the same videos: of the first one's subset lists.

    Labels are those of a folder, or made from annotations, which give classes, too.
    """
    from sola.probe import temporal_head  # torch takes seconds
    from sola.probe.snippets import check_both_kinds
    from sola.system.device import resolve_device

    device, bad_files = resolve_device(config.device), BadFiles(config.on_bad_file)
    seeds = config.eval_head_seeds
    counts = config.eval_head_videos, config.eval_head_videos_validation
    splits = [{r: open_split(r, split, None, bad_files) for r in roots} for split in SPLITS]
    names = [
        temporal_head.drawn(split, common_videos(config, parts, annotations), count, config.seed)
        for split, parts, count in zip(SPLITS, splits, counts, strict=True)
    ]
    for root in roots:
        print(f"{root}: {' and '.join(str(len(n)) for n in names)} videos, {2 * seeds} heads")
        files = [{v: of[root].videos[v] for v in n} for of, n in zip(splits, names, strict=True)]
        if annotations:
            labels = class_labels(config, files, annotations)
        else:
            folders = [label_folder(label_base, split) for split in SPLITS]
            labels = [read_labels(*of, bad_files) for of in zip(folders, files, strict=True)]
        held = []
        for split, of_split, found in zip(SPLITS, files, labels, strict=True):
            videos = [of_split[video] for video in found]
            check_both_kinds(split, [values > 0 for values in found.values()])
            held.append(temporal_head.hold(videos, [*found.values()], device))
        scores = temporal_head.binary_scores(*held, seeds)
        classes = 1 + max(int(values.max()) for part in held for values in part.labels)
        if classes > 2:
            scores |= temporal_head.class_scores(*held, seeds, classes)
        yield root, scores


def common_videos(
    config: Config, parts: Mapping[str, Split], annotations: dict[str, Annotation]
) -> list[str]:
    """Videos of the first folder's subset that all folders have, annotated if any are."""
    (root, first), *others = parts.items()
    videos = subset_of(root, first, config.seed, BadFiles("skip"))
    videos = [video for video in videos if all(video in part.videos for _, part in others)]
    if annotations and videos:
        named = match(annotations, videos)
        videos = [v for v in videos if v in named and annotations[named[v]].actions is not None]
    if not videos:
        raise DataError(f"no {first.name} video is in all of {', '.join(parts)}")
    return videos


def class_labels(
    config: Config, files: Sequence[Mapping[str, FeatureFile]], annotations: dict[str, Annotation]
) -> list[dict[str, np.ndarray]]:
    """Video -> numbers of its snippets' classes, [T], 0 without action, for each split.

    The rate is that of the configuration, or else found from the durations.
    """
    named = [match(annotations, of_split) for of_split in files]
    videos = [
        [(video, file.length, annotations[names[video]]) for video, file in of_split.items()]
        for of_split, names in zip(files, named, strict=True)
    ]
    sampling = Sampling.of(config)
    timed = [(length, e.duration) for part in videos for _, length, e in part if e.duration]
    if timed and not (sampling.fps or sampling.feat_stride):
        sampling = dataclasses.replace(sampling, fps=find_rate(*zip(*timed, strict=True)))
    names = sorted({action.label for part in videos for *_, e in part for action in e.actions})
    numbers, labels = {name: number for number, name in enumerate(names, start=1)}, []
    for part in videos:
        labels.append({video: np.zeros(length, int) for video, length, _ in part})
        for video, length, entry in part:
            axis = sampling.axis(length, entry)
            if axis is None:
                raise DataError(f"{video}: its annotation has no duration; give the rate: --fps=2")
            for action in entry.actions:
                is_in = action_labels([action], axis.centres(length))
                labels[-1][video][is_in] = numbers[action.label]
    return labels


def table(scores: Mapping[str, "Scores"]) -> list[str]:
    """A row a folder: means over the seeds and their spread; gains over the first one."""
    columns = [name for name, key in COLUMNS.items() if all(key in of for of in scores.values())]
    width = max(8, *map(len, scores))
    head = [f"{'features':<{width}}", *(f"{name:>17}" for name in columns), "  gain in ROC-AUC"]
    first, lines = next(iter(scores.values())), ["".join(head)]
    for root, of in scores.items():
        cells = (with_spread(of[COLUMNS[n]], of[f"{COLUMNS[n]}_std"]) for n in columns)
        gain, spread = of["roc_auc"] - first["roc_auc"], head_spread([first, of])
        spreads = f", {gain / spread:+.1f} spreads" if spread else ""
        gained = "" if of is first else f"  {gain:+.4f}{spreads}"
        lines.append("".join([f"{root:<{width}}", *(f"{cell:>17}" for cell in cells), gained]))
    return lines


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
