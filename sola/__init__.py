"""SoLa: a residual module on frozen snippet features, trained by temporal similarity matching.

The names below are the public interface. They are imported when first used, so that the scripts
can answer --help, or refuse a bad argument, without waiting for torch.
"""

import importlib

_HOMES = {
    "SoLaModule": "sola.model",
    "SimilarityMatching": "sola.model",
    "load_module": "sola.model",
    "load_config": "sola.config",
    "Config": "sola.config",
    "target_tsm": "sola.tsm",
    "predicted_tsm": "sola.tsm",
    "similarity_matching_loss": "sola.tsm",
    "SolaError": "sola.runtime",
    "ConfigError": "sola.config",
    "DataError": "sola.arrays",
    "CheckpointError": "sola.checkpoint",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
