"""The protocols of the linear probe: each is a file with check and probe, and an entry here."""

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
