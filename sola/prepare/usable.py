"""What would stop the training that is made ready, or make it mean nothing: refused."""

import dataclasses

from sola.data.index_files import index_file, read_subset_list
from sola.data.videos import SPLITS, draw_subset
from sola.errors import ConfigError, DataError, shown
from sola.prepare.annotated import check_annotations
from sola.prepare.dataset import MISFITS, DataSet
from sola.prepare.sizes import trained_on


def usable(data: DataSet, bad_files: dict[str, str]) -> DataSet:
    """The data set without the files that are left out. bad_files: path -> what is wrong with it.

    Raises SolaError for what is refused.
    """
    if data.config.in_feature_dim != data.width:
        raise ConfigError(f"in_feature_dim is {data.config.in_feature_dim}, not {data.width}")
    check_annotations(data)
    skipped, skips = dict(bad_files), data.config.on_bad_file == "skip"
    if skipped and not skips:
        path, what = min(skipped.items())
        what = f"{path}: {what} ({len(skipped)} such files)"
        raise DataError(f"{what}; mend or remove them, or give on_bad_file=skip")
    if len(data.misfits) > MISFITS * len(data.snippets_off):
        if not skips:
            raise DataError(_misfit(data))
        skipped |= {file.path: "another T than its duration says" for file in data.misfits.values()}
    left = {s: {v: f for v, f in data.videos[s].items() if f.path not in skipped} for s in SPLITS}
    for split in SPLITS:
        if len(left[split]) < len(data.videos[split]) / 2:
            raise DataError(
                f"{split}: only {len(left[split])} of {len(data.videos[split])} videos are usable"
            )
    data = dataclasses.replace(data, videos=left)
    if not trained_on(data, data.config):
        window = data.config.sampling_duration
        raise DataError(
            f"training: no video is longer than sampling_duration, {window} snippets; a smaller "
            "--span makes a smaller window"
        )
    if data.annotations and not data.lacks_labels:
        _check_probe(data)
    return data


def _misfit(data: DataSet) -> str:
    """Which rate does not fit, where, and the ways out."""
    misfits, off = data.misfits, data.snippets_off
    video = next(iter(misfits))
    length = misfits[video].length
    common = data.sampling.common_axis
    rate = f"{common.rate:g} snippets a second" if common else "the rate given"
    return (
        f"{rate}: does not fit {len(misfits)} of {len(off)} videos, as {shown(video)}, T = "
        f"{length} where its duration makes {length - off[video]:.0f}; give --fps=per_video, the "
        "right --fps or --clip (without, they are found), or leave such videos out with "
        "on_bad_file=skip"
    )


def probed_videos(data: DataSet, split: str) -> list[str]:
    """The videos that the probe will look at: of the list that is there, else drawn."""
    listed = read_subset_list(index_file(data.config.data_root, split, "subset_list"))
    known = list(data.videos[split] if data.lacks_labels else data.labels[split])
    if listed is None:
        return draw_subset(split, known, data.config.seed)
    return [video for video in listed if video in known]


def _check_probe(data: DataSet) -> None:
    """Raise DataError where the probe would, at the start of the training."""
    from sola.probe import PROTOCOLS  # torch takes seconds
    from sola.probe.snippets import ProbeVideos

    probed = []
    for split in SPLITS:
        videos = {v: data.videos[split][v] for v in probed_videos(data, split)}
        labels = [data.labels[split][video] for video in videos]
        probed.append(ProbeVideos(split, [*videos.values()], labels))
    PROTOCOLS[data.config.eval_protocol].check(*probed, data.config)
