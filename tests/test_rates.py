"""prepare: the rate and the clip of snippets, found from annotations or given."""

import numpy as np
import pytest
from test_annotated import NAMES, entries, features, labels, run, seeded

from sola.errors import DataError


def of_mixed_frame_rates(clip):
    """Durations and entries, with fps, of features: clips of so many frames, one in 8."""
    durations, rates = seeded(20, 60), dict(zip(NAMES, [30, 25, 60, 24] * 5, strict=True))
    features({n: int((d * rates[n] - clip) / 8) + 1 for n, d in durations.items()})
    database = entries(durations)
    for name, entry in database.items():
        entry["fps"] = rates[name]
    return durations, database


def test_features_rescaled_to_one_length(place, capsys):
    durations = seeded(20, 240)
    features(dict.fromkeys(NAMES, 100))
    config = run(entries(durations))
    assert config.fps == 0
    assert "each video's own" in capsys.readouterr().out
    for name in NAMES:  # whatever the duration, the segment is at the same places
        assert labels(name).tolist() == [20 <= i + 0.5 < 60 for i in range(100)]
    rate = float(np.median([100 / d for d in durations.values()]))
    assert config.step == max(1, round(rate))


def test_frame_rates_that_differ(place, capsys):
    durations, database = of_mixed_frame_rates(clip=16)
    config = run(database, "--feat_stride=8", "--num_frames=16")
    timing = config.fps, config.feat_stride, config.num_frames, config.video_fps
    assert timing == (0, 8, 16, 0)
    for name, duration in durations.items():
        made = labels(name)
        centres = (np.arange(len(made)) * 8 + 8) / database[name]["fps"]
        assert made.tolist() == [0.2 * duration <= c < 0.6 * duration for c in centres]
    with pytest.raises(DataError, match=r"3.75 snippets a second: does not fit 1\d of 20 videos"):
        run(database, "--fps=3.75", "--overwrite")
    with pytest.raises(DataError, match=r"only 5 of 20 .* not half; the rate does not fit 15"):
        run(database, "--fps=3.75", "--overwrite", "on_bad_file=skip")
    with pytest.raises(DataError, match="does not fit"):
        run(database, "--fps=3.75", "--check")
    for entry in database.values():
        del entry["fps"]
    with pytest.raises(DataError, match=r"no annotated video has fps, .*give --video_fps"):
        run(database, "--feat_stride=8", "--overwrite")


def test_one_frame_rate_of_all_entries_is_one_rate(place, capsys):
    durations = seeded(20, 60)
    features({n: int((d * 30 - 16) / 4) + 1 for n, d in durations.items()})
    config = run(entries(durations, fps=30.0), "--feat_stride=4", "--num_frames=16")
    assert (config.fps, config.video_fps, config.step, config.step_start) == (7.5, 30, 8, 16)
    assert "T is within a snippet of duration * fps in all 20 videos" in capsys.readouterr().out


@pytest.mark.parametrize("given", [[], ["--fps=3.75"], ["--feat_stride=8", "--video_fps=30"]])
def test_clips_that_would_pass_the_end_are_missing(place, capsys, given):
    durations = seeded(18, 32)
    features({n: int((d * 30 - 64) / 8) + 1 for n, d in durations.items()})
    config = run(entries(durations), *given)
    clip = config.num_frames / 30 if config.feat_stride else config.clip
    assert (config.fps, clip) == (3.75, pytest.approx(64 / 30))
    assert "clip: 8 strides, 2.13 s, found" in capsys.readouterr().out
    for name, duration in durations.items():
        made = labels(name)
        centres = (np.arange(len(made)) * 8 + 32) / 30
        assert made.tolist() == [0.2 * duration <= c < 0.6 * duration for c in centres]
    with pytest.raises(DataError, match="the right --fps or --clip"):
        run(entries(durations), "--fps=3.75", "--clip=0.5", "--overwrite")


def test_mixed_frame_rates_are_found_from_the_annotations(place, capsys):
    """Clips of 64 frames, one in 8: T over duration would place them wrongly."""
    durations, database = of_mixed_frame_rates(clip=64)
    config = run(database)
    assert (config.feat_stride, config.num_frames, config.fps) == (8, 64, 0)
    assert "clip: 8 strides" in capsys.readouterr().out
    for name, duration in durations.items():
        made = labels(name)
        centres = (np.arange(len(made)) * 8 + 32) / database[name]["fps"]
        assert made.tolist() == [0.2 * duration <= c < 0.6 * duration for c in centres]


def test_a_clip_in_seconds_goes_with_rates_in_seconds(place):
    _, database = of_mixed_frame_rates(clip=64)
    config = run(database, "--clip=2")
    assert (config.feat_stride, config.fps, config.clip) == (0, 0, 2)
