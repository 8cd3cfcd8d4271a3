"""Where snippets lie in time, and rates and clips found from lengths and durations."""

import numpy as np
import pytest

from sola.config import Config
from sola.data.annotations import Annotation
from sola.data.times import Sampling, TimeAxis, find_rate, find_strides
from sola.errors import ConfigError

GENERATOR = np.random.default_rng(0)
DURATIONS = GENERATOR.uniform(18, 32, 12)


def entry(duration=None, fps=None):
    return Annotation("training", duration, (), fps)


def test_hacs_centres_and_lengths():
    axis = Sampling(fps=2.0).axis(3, None)
    assert axis.centres(3).tolist() == [0.25, 0.75, 1.25]
    assert axis.expected_length(10) == 20
    assert axis.clip_snippets == 1


def test_frames_give_rate_and_clip():
    """ActionFormer's THUMOS14: stride 4 and clips of 16 frames at 30 frames a second."""
    axis = Sampling(feat_stride=4, num_frames=16).axis(100, entry(fps=30.0))
    assert (axis.rate, axis.clip) == (7.5, 16 / 30)
    assert axis.centres(2).tolist() == pytest.approx([8 / 30, 12 / 30])
    assert axis.expected_length(10) == pytest.approx((300 - 16) / 4 + 1)
    assert Sampling(feat_stride=4, video_fps=20.0).axis(9, entry(fps=30.0)).rate == 5
    assert Sampling(feat_stride=4).axis(9, None) is None


@pytest.mark.parametrize(
    ("sampling", "rate", "clip"),
    [
        (Sampling(), 100 / 50, 1 / 2),  # rescaled: T / D
        (Sampling(clip=5.0), 99 / 45, 5.0),  # of other frame rates: (T - 1) / (D - clip)
        (Sampling(feat_stride=4, num_frames=16), 103 / 50, 4 * 50 / 103),  # no fps in its entry
    ],
)
def test_a_video_of_its_own_rate(sampling, rate, clip):
    axis = sampling.axis(100, entry(50.0))
    assert (axis.rate, axis.clip) == pytest.approx((rate, clip))
    assert axis.expected_length(50) == pytest.approx(100)
    assert sampling.axis(100, entry()) is None
    assert sampling.common_axis is None
    assert np.isfinite(sampling.axis(1, entry(3.0)).centres(1)).all()


@pytest.mark.parametrize("rounded", [np.floor, np.ceil, np.round])
@pytest.mark.parametrize("fps", [2.0, 3.75, 25 / 16, 3.333])
def test_a_common_rate_is_found(fps, rounded):
    found = find_rate(rounded(DURATIONS * fps), DURATIONS)
    assert found == pytest.approx(fps, rel=0.01)
    if fps != 3.333:
        assert found == fps


def test_29_97_frames_a_second_are_near_30():
    assert find_rate(np.floor(DURATIONS * 29.97 / 16), DURATIONS) == 1.875


def test_clips_that_would_pass_the_end_are_missing():
    lengths = np.floor((DURATIONS * 30 - 64) / 8) + 1
    assert find_rate(lengths, DURATIONS) == 3.75
    assert find_strides(lengths, DURATIONS * 3.75) == 8
    assert find_strides(np.floor(DURATIONS * 3.75), DURATIONS * 3.75) == 0
    assert find_strides(lengths[:4], DURATIONS[:4] * 3.75) == 0  # too few to say
    assert find_strides(lengths, DURATIONS * 3.0) == 0


@pytest.mark.parametrize("low", [18, 100])
def test_the_rate_of_such_features_is_found_for_long_videos_and_beside_an_odd_one(low):
    durations = np.random.default_rng(low).uniform(low, 10 * low, 40)
    lengths = np.floor((durations * 30 - 64) / 8) + 1
    lengths[7] += 9
    assert find_rate(lengths, durations) == pytest.approx(3.75, rel=1e-3)
    assert find_strides(lengths, durations * 3.75) == 8


def test_a_wrong_rate_of_videos_alike_is_no_clip():
    """With one duration, T that is always too short says nothing of clips."""
    assert find_strides(np.full(20, 100), np.full(20, 120.0)) == 0
    durations = np.random.default_rng(0).uniform(18, 22, 20)
    assert find_strides(np.floor(durations * 7.5), durations * 8) == 0


def test_where_videos_do_not_agree_each_has_its_own_rate():
    rates = np.array([30, 30, 25, 30, 60, 24] * 2)
    assert find_rate(np.floor(DURATIONS * rates / 8), DURATIONS) == 0
    assert find_rate(np.full(12, 100), GENERATOR.uniform(20, 240, 12)) == 0
    one_off = np.floor(DURATIONS * 2)
    one_off[3] += 5
    assert find_rate(one_off, DURATIONS) == 0


def test_resized_snippets_lie_where_interpolation_puts_them():
    axis = TimeAxis(2.0, 1.5)
    resized = axis.resized(40, 100)
    places = (np.arange(100) + 0.5) * 40 / 100 - 0.5  # of F.interpolate, in snippets
    assert resized.centres(100) == pytest.approx(places / 2 + 0.75)


def test_what_fits():
    axis = TimeAxis(2.0, 0.5)
    assert axis.fits(102, 50.0)  # two snippets
    assert axis.fits(105, 50.0)  # five per cent
    assert not axis.fits(106, 50.0)
    assert axis.fits(7, 2.5)
    assert not axis.fits(8, 2.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_frames": 16}, "num_frames is 16; needs feat_stride"),
        ({"video_fps": 30.0}, "video_fps is 30.0; needs feat_stride"),
        ({"feat_stride": 4, "video_fps": 30.0}, "fps is 2.0; must be 7.5 with feat_stride"),
        ({"feat_stride": 4, "fps": 0.0, "clip": 1.0}, "clip is 1.0"),
        ({"fps": 1e-4}, "fps is 0.0001"),
    ],
)
def test_settings_of_time_that_contradict(settings, said):
    with pytest.raises(ConfigError, match=said):
        Config(exp_name="x", **settings)


def test_a_configuration_in_frames():
    config = Config(exp_name="x", feat_stride=4, num_frames=16, video_fps=30.0, fps=7.5)
    assert Sampling.of(config).common_axis == TimeAxis(7.5, 16 / 30)
    assert Sampling.of(Config(exp_name="x")).common_axis == TimeAxis(2.0, 0.5)
