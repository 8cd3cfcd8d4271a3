"""The stages that speed.py times, of ours; reference.py has the same ones under the same names."""

import dataclasses
import shutil
from pathlib import Path

import common
import torch

from sola.export.dump import export_features
from sola.method.weights import save
from sola.probe.protocols import PROTOCOLS
from sola.training.inputs import open_inputs
from sola.training.loop import open_store

ROUNDS = 4  # windows of each training video in an epoch; HACS has 62 times as many videos
SCORED = {"eval_snippets": 8_333, "eval_snippets_validation": 1_667}


class Ours:
    """The program's own functions, at the canonical settings."""

    def __init__(self, folder: Path) -> None:
        self.config = common.config_for(folder, **SCORED)
        inputs = open_inputs(self.config)
        inputs = dataclasses.replace(inputs, videos=inputs.videos * ROUNDS)
        self.run, self.stores = common.new_run(self.config, inputs), {}
        self.module = self.run.learner.model.module
        torch.nn.init.constant_(self.module.alpha, 0.1)
        self.checkpoint = folder / "module.pt"
        save(self.checkpoint, self.module.state_dict())

    def train(self, storage: str) -> None:
        """An epoch; the first one with a storage also opens it."""
        run = dataclasses.replace(
            self.run, config=dataclasses.replace(self.config, storage=storage)
        )
        if storage not in self.stores:
            self.stores[storage] = open_store(run)
        common.train_epoch(run, self.stores[storage])

    def evaluate(self, **scored: int) -> None:
        config = dataclasses.replace(self.config, **scored)
        protocol, probed = PROTOCOLS[config.eval_protocol], self.run.inputs.probed
        self.scores = protocol.probe(self.module, *probed, config, epoch=1)

    def dump(self) -> None:
        export_features(self.config, str(self.checkpoint))

    def clean(self) -> None:
        shutil.rmtree(self.config.feature_save_path, ignore_errors=True)


def evaluation_memory(folder: Path) -> float:
    """MB that an evaluation of 50,000 + 20,000 snippets takes at its peak."""
    ours = Ours(folder)
    ours.evaluate()  # imports what it needs
    before = common.memory_mb("VmRSS")
    ours.evaluate(eval_snippets=50_000, eval_snippets_validation=20_000)
    return common.memory_mb("VmHWM") - before
