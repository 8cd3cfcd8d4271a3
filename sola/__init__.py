"""SoLa: a residual module on frozen snippet features, trained by temporal similarity matching.

The names below are the public interface. They are imported when first used, so that the scripts
can answer --help, or refuse a bad argument, without waiting for torch.
"""

import importlib

_HOMES = {
    "SoLaModule": "sola.method.module",
    "SimilarityMatching": "sola.method.matching",
    "load_module": "sola.method.weights",
    "load_config": "sola.config",
    "Config": "sola.config",
    "target_tsm": "sola.method.tsm",
    "predicted_tsm": "sola.method.tsm",
    "similarity_matching_loss": "sola.method.tsm",
    "SolaError": "sola.errors",
    "ConfigError": "sola.errors",
    "DataError": "sola.errors",
    "CheckpointError": "sola.errors",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
