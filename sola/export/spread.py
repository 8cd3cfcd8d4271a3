"""How the features written are spread beside those read: heads do not normalise."""

import numpy as np

VIDEOS = 200  # the first ones, which suffice


class Spread:
    """Sums of inputs and outputs by channel, for their deviations."""

    def __init__(self) -> None:
        self.videos = self.snippets = 0
        self.sums = np.zeros((2, 2, 1))  # [input or output, first or second power, C]

    def add(self, features: np.ndarray, made: np.ndarray) -> None:
        """Count a video in: [T, C] read, [T, C] written."""
        if self.videos < VIDEOS and features.shape == made.shape:
            self.videos += 1
            self.snippets += len(features)
            both = np.stack([features, made]).astype(np.float64)
            self.sums = self.sums + np.stack([both.sum(1), np.square(both).sum(1)], axis=1)

    def describe(self) -> str:
        """A line on the ratio of their deviations; empty where nothing was changed."""
        means = self.sums / max(self.snippets, 1)
        read, written = np.sqrt(np.maximum(means[:, 1] - means[:, 0] ** 2, 0))  # [C] each
        varies = read > 1e-6 * np.abs(means[0, 0])
        if (self.sums[0] == self.sums[1]).all() or not varies.any():
            return ""
        ratios = written[varies] / read[varies]
        return (
            f"deviation of a channel, written over read: median {np.median(ratios):.2f}, largest "
            f"{ratios.max():.2f} ({self.videos} videos); heads do not normalise"
        )
