"""Probes: how well a classifier on frozen features tells action from non-action snippets.

A protocol of the linear probe is a file with two functions, check and probe, and its entry here;
temporal_head.py is the second probe. The module is a guest: its weights, its mode and the global
random state stay as they are.
"""

from collections.abc import Sequence

from sola.config import Config
from sola.probe import logistic, sgd, temporal_head
from sola.probe.snippets import ProbeVideos

PROTOCOLS = {"logistic_regression": logistic, "sgd": sgd}


def check_probed(probed: Sequence[ProbeVideos], config: Config) -> None:
    """Raise an error where a probe that the configuration asks for cannot score these videos.

    probed: training and validation.
    """
    PROTOCOLS[config.eval_protocol].check(*probed, config)
    if config.eval_head:
        temporal_head.seen(probed, config)
