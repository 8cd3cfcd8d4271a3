"""The evaluation of a run: its probes, on record and in words."""

import time

from sola.config import Config
from sola.method.module import SoLaModule
from sola.probe import PROTOCOLS, temporal_head
from sola.records import Record, append_record, evaluations
from sola.training.health import news
from sola.training.inputs import Inputs
from sola.training.messages import describe_head


def evaluate(
    config: Config, epoch: int, module: SoLaModule, inputs: Inputs, records: list[Record]
) -> None:
    """Run the probes and record them, unless there are no labels or they are on record.

    records: those in metrics.jsonl; new ones are added to both.
    """
    if inputs.probed is None:
        return
    if epoch not in {record["epoch"] for record in evaluations(records)}:
        _probe(config, epoch, module, inputs, records)
    if config.eval_head:  # of untouched features, too, where it was asked for later
        like = temporal_head.counts(inputs.probed, config).items()
        there = {record["epoch"] for record in records if like <= record.items()}
        if not there:
            heads, steps = 2 * config.eval_head_seeds, temporal_head.STEPS
            print(
                f"temporal head: {heads} of {steps} steps at each evaluation, which takes a while"
            )
        for number in sorted({0, epoch} - there):
            _score_head(config, number, module, inputs, records)


def _probe(
    config: Config, epoch: int, module: SoLaModule, inputs: Inputs, records: list[Record]
) -> None:
    started = time.perf_counter()
    scores = PROTOCOLS[config.eval_protocol].probe(module, *inputs.probed, config, epoch)
    record = {"record": "evaluation", "epoch": epoch, "protocol": config.eval_protocol, **scores}
    record |= {"seconds": round(time.perf_counter() - started, 3)} | inputs.skipped
    append_record(config.metrics_file, record)
    records.append(record)
    print(f"eval_result in epoch{epoch}: {scores['accuracy']:.4f}")
    if not scores.get("converged", True):
        print("warning: the linear probe did not converge; its figures are a lower bound")
    for line in news(records, config):
        print(line)


def _score_head(
    config: Config, epoch: int, module: SoLaModule, inputs: Inputs, records: list[Record]
) -> None:
    started, device = time.perf_counter(), module.alpha.device
    scores = temporal_head.probe(module if epoch else None, inputs.probed, config, device)
    record = {"record": "head_evaluation", "epoch": epoch, **scores}
    record |= {"seconds": round(time.perf_counter() - started, 3)} | inputs.skipped
    append_record(config.metrics_file, record)
    records.append(record)
    print(describe_head(records))
