"""Where snippets lie in time: the one rule behind labels, pictures and what heads are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from sola.config import Config
from sola.data.annotations import Annotation

# Snippets a second; one so near to what is found, relatively, is meant if it fits as well.
USUAL_RATES = 1.0, 2.0, 3.0, 4.0, 5.0, 25 / 16, 30 / 16, 25 / 8, 30 / 8, 25 / 4, 30 / 4
NEAR = 0.05
AGREE = 0.01, 1.2  # relatively, or in snippets (29.97 for 30 frames a second adds to rounding)
OFF_SNIPPETS, OFF_SHARE = 2, 0.05  # by more than both of which a rate does not fit a video
FEWEST_UNPADDED = 5  # videos, from which a T that is always short by as much is no chance
FEWEST_APART = 8  # snippets, that durations must differ by for that
MISFITS = 0.05  # share of the annotated videos that a rate or clip may not fit
LONGEST_CLIP = 64  # snippets, of a clip that is recognised by that


@dataclass(frozen=True)
class TimeAxis:
    """The snippets of one video: rate of them a second, each of a clip of so many seconds."""

    rate: float
    clip: float

    @property
    def clip_snippets(self) -> float:
        """The clip in strides: 1 where one snippet's clip ends as the next one's begins."""
        return self.clip * self.rate

    def centres(self, length: int) -> np.ndarray:
        """Seconds at which the snippets' clips have their middle: [T]."""
        return np.arange(length) / self.rate + self.clip / 2

    def expected_length(self, duration: float) -> float:
        """T of a video of so many seconds, before rounding; a real one may be one off."""
        return (duration - self.clip) * self.rate + 1

    def starts(self, snippets: np.ndarray) -> np.ndarray:
        """Seconds from which these snippets fill a stride each, around their clips' middle."""
        return (snippets - 0.5) / self.rate + self.clip / 2

    def span(self, length: int) -> tuple[float, float]:
        """Seconds between which T snippets lie."""
        return tuple(self.starts(np.array([0, length])).tolist())

    def resized(self, length: int, wanted: int) -> TimeAxis:
        """That of T snippets which are brought to another number, as by F.interpolate."""
        rate = self.rate * wanted / length
        return TimeAxis(rate, self.clip - 1 / self.rate + 1 / rate)

    def fits(self, length: int, duration: float) -> bool:
        """Whether T snippets are those of so many seconds, within what is lost or padded."""
        expected = self.expected_length(duration)
        return abs(length - expected) <= max(OFF_SNIPPETS, OFF_SHARE * expected)


@dataclass(frozen=True)
class Sampling:
    """How the features of a data set were taken from its videos; 0 stands for: not given.

    fps: snippets a second; 0: each video's own. clip: seconds that a snippet looks at; 0: one
    stride. feat_stride, num_frames: the same two in frames, at video_fps frames a second; 0: each
    video's own, from its annotation.
    """

    fps: float = 0.0
    clip: float = 0.0
    feat_stride: int = 0
    num_frames: int = 0
    video_fps: float = 0.0

    @classmethod
    def of(cls, config: Config) -> Sampling:
        """That of a configuration."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def axis(self, length: int, annotation: Annotation | None) -> TimeAxis | None:
        """The axis of a video of T snippets; None where its rate cannot be known."""
        fps, duration = (annotation.fps, annotation.duration) if annotation else (None, None)
        strides = self.num_frames / self.feat_stride if self.num_frames else 1.0
        frames = self.video_fps or fps
        if self.feat_stride and frames:
            return TimeAxis(frames / self.feat_stride, strides * self.feat_stride / frames)
        if self.fps:
            return TimeAxis(self.fps, self.clip or 1 / self.fps)
        if duration is None:
            return None
        if self.clip and length > 1 and duration > self.clip:
            return TimeAxis((length - 1) / (duration - self.clip), self.clip)
        rate = (length - 1 + strides) / duration
        return TimeAxis(rate, strides / rate)

    @property
    def common_axis(self) -> TimeAxis | None:
        """That of all videos; None where each has its own."""
        return self.axis(1, None)


def find_rate(lengths: Sequence[int], durations: Sequence[float]) -> float:
    """One rate for all videos where they agree on it, within a snippet or 1 %; else 0.

    lengths: T of each video. durations: seconds. A usual rate is preferred to one beside it. T may
    lack the clips that would pass the end of a video, see find_strides.
    """
    snippets, seconds = np.array(lengths), np.array(durations)
    rate = float(np.median(snippets / seconds))
    slope = float(np.polyfit(seconds, snippets, 1)[0]) if np.ptp(seconds) > 0 else 0.0

    def is_common(fps: float, relative: float) -> bool:
        near = np.maximum(AGREE[1], relative * snippets)
        return bool((np.abs(snippets - fps * seconds) <= near).all())

    usual, of_clips = _usual(rate), _usual(slope)
    if is_common(usual, 0.0):
        return usual
    if find_strides(lengths, of_clips * seconds):  # before a rate that is none people take
        return of_clips
    if is_common(rate, AGREE[0]):
        return rate
    return slope if find_strides(lengths, slope * seconds) else 0.0


def find_stride(lengths: np.ndarray, frames: np.ndarray) -> int:
    """Frames from a snippet to the next, the same whole number in all videos; 0 where it is not."""
    rate = find_rate(lengths, frames)
    stride = round(1 / rate) if rate else 0
    return stride if abs(1 - stride * rate) < AGREE[0] else 0


def find_strides(lengths: Sequence[int], whole: Sequence[float]) -> int:
    """How many strides a clip has, where T lacks the clips that would pass the end of a video.

    T is then short by as many snippets in all videos but a few, long or short, within one. whole:
    duration * rate of each. 0 where it is not so, or durations are too much alike to tell.
    """
    full = np.array(whole)
    if len(full) < FEWEST_UNPADDED or np.ptp(full) < FEWEST_APART:
        return 0
    off = np.array(lengths) - full
    strides = round(0.5 - float(np.median(off)))  # T is floor(duration * rate - strides) + 1
    is_near = np.abs(off - np.median(off)) <= 1
    if not 2 <= strides <= LONGEST_CLIP or is_near.mean() < 1 - MISFITS:
        return 0
    slope = np.polyfit(full[is_near], np.array(lengths)[is_near], 1)[0]
    return strides if abs(slope - 1) < NEAR else 0


def _usual(rate: float) -> float:
    """The nearest usual rate, if it is near; else the rate."""
    nearest = min(USUAL_RATES, key=lambda usual: abs(rate / usual - 1))
    return nearest if abs(rate / nearest - 1) < NEAR else rate
