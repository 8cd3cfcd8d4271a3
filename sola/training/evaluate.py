"""The evaluation of a run: its linear probe, on record and in words."""

import time

from sola.config import Config
from sola.method.module import SoLaModule
from sola.probe import PROTOCOLS
from sola.records import Record, append_record, evaluations
from sola.training.inputs import Inputs
from sola.training.messages import health


def evaluate(
    config: Config, epoch: int, module: SoLaModule, inputs: Inputs, records: list[Record]
) -> None:
    """Run the linear probe and record it, unless there are no labels or it is on record.

    records: those in metrics.jsonl; the new one is added to both.
    """
    recorded = [record["epoch"] for record in evaluations(records)]
    if inputs.probed is None or epoch in recorded:
        return
    started = time.perf_counter()
    scores = PROTOCOLS[config.eval_protocol].probe(module, *inputs.probed, config, epoch)
    record = {"record": "evaluation", "epoch": epoch, "protocol": config.eval_protocol, **scores}
    record |= {"seconds": round(time.perf_counter() - started, 3)} | inputs.skipped
    append_record(config.metrics_file, record)
    records.append(record)
    print(f"eval_result in epoch{epoch}: {scores['accuracy']:.4f}")
    if not scores.get("converged", True):
        print("warning: the linear probe did not converge; its figures are a lower bound")
    for line in health(records, config):
        print(line)
