"""What would stop the training that is made ready, or make it mean nothing: refused."""

import dataclasses
import math

from sola.data.times import MISFITS
from sola.data.videos import SPLITS
from sola.errors import ConfigError, DataError, shown
from sola.prepare.dataset import BEYOND, DataSet, named
from sola.prepare.new_yaml import trained_on


def usable(data: DataSet, bad_files: dict[str, str]) -> DataSet:
    """The data set without the files that are left out. bad_files: path -> what is wrong with it.

    Raises SolaError for what is refused.
    """
    config = data.config
    if config.in_feature_dim != data.width:
        raise ConfigError(f"in_feature_dim is {config.in_feature_dim}, not {data.width}")
    _check_annotations(data)
    skips, left_out = config.on_bad_file == "skip", {*bad_files}
    if bad_files and not skips:
        path, what = min(bad_files.items())
        what = f"{path}: {what} ({len(bad_files)} such files)"
        raise DataError(f"{what}; mend or remove them, or give on_bad_file=skip")
    known = [video for video in data.videos if video.off is not None]
    misfits = [v for v in known if not v.axis.fits(v.file.length, v.entry.duration)]
    if len(misfits) > MISFITS * len(known):
        if not skips:
            first, length = misfits[0], misfits[0].file.length
            raise DataError(
                f"{first.axis.rate:g} snippets a second: does not fit {len(misfits)} of "
                f"{len(known)} videos, as {shown(first.name)}, T = {length} where its duration "
                f"makes {length - first.off:.0f}; give --fps=per_video, the right --fps or --clip "
                "(without, they are found), or leave such videos out with on_bad_file=skip"
            )
        left_out |= {video.file.path for video in misfits}
    left = [video for video in data.videos if video.file.path not in left_out]
    found = {video.file.path for video in data.videos} | {*bad_files}
    if len(left) < len(found) / 2:
        why = f"; the rate does not fit {len(misfits)}" if misfits else ""
        raise DataError(f"only {len(left)} of {len(found)} videos are usable, not half{why}")
    for split in SPLITS:
        count, of_all = sum(video.split == split for video in left), len(data.of(split))
        if count < of_all / 2:
            raise DataError(f"{split}: only {count} of {of_all} videos are usable")
    names = [video.name for video in data.videos if video.file.path in left_out]
    if names:
        print(f"left out: {named(names)}")
    data = dataclasses.replace(data, videos=left)
    if not trained_on(data, config.sampling_duration):
        raise DataError(
            f"training: no video is longer than sampling_duration, {config.sampling_duration} "
            "snippets; a smaller --span makes a smaller window"
        )
    if not data.lacks_labels:
        _check_probe(data)
    return data


def _check_annotations(data: DataSet) -> None:
    """Raise DataError for annotations that would make labels which mean nothing."""
    for split in SPLITS:
        bare = [v.name for v in data.of(split) if v.annotated_as and v.entry.actions is None]
        if bare:
            what = f"{split}: {named(bare)} annotated without a list of annotations"
            raise DataError(f"{what}, which may be empty: mend these entries, or remove them")
    timed = [(v, a) for v in data.annotated if v.end < math.inf for a in v.actions]
    beyond = [(video, action) for video, action in timed if action.end > BEYOND * video.end]
    if len(beyond) > len(timed) / 2:
        video, action = beyond[0]
        raise DataError(
            f"{len(beyond)} of {len(timed)} segments end after their video, as "
            f"{action.start:g} to {action.end:g} in {shown(video.name)} of {video.end:g} s: are "
            "they in frames? Give segments in seconds"
        )
    if timed and all(action.end <= BEYOND < video.end for video, action in timed):
        raise DataError(
            f"all {len(timed)} segments lie below 1, durations do not: are they fractions of the "
            "duration? Give segments in seconds"
        )


def _check_probe(data: DataSet) -> None:
    """Raise an error where the probe would, at the start of the training."""
    from sola.probe.protocols import check_probed  # torch takes seconds
    from sola.probe.snippets import ProbeVideos

    probed = []
    for split in SPLITS:
        videos = data.probed(split)
        labels = [video.labels for video in videos]
        probed.append(ProbeVideos(split, [video.file for video in videos], labels))
    check_probed(probed, data.config)
