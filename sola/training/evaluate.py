"""The evaluation of a run: its linear probe, on record and in words."""

import time
from collections.abc import Sequence

from sola.config import Config
from sola.method.module import SoLaModule
from sola.probe.logistic import probe_logistic_regression, probe_sgd
from sola.records import Record, append_record, evaluations
from sola.training.inputs import RunData
from sola.training.messages import health


def evaluate(
    config: Config, epoch: int, module: SoLaModule, data: RunData, records: list[Record]
) -> None:
    """Run the linear probe and record it, unless there are no labels or it is on record.

    records: those in metrics.jsonl; the new one is added to both.
    """
    recorded = [record["epoch"] for record in evaluations(records)]
    if data.probe is None or epoch in recorded:
        return
    started = time.perf_counter()
    if config.eval_protocol == "sgd":
        scores = probe_sgd(
            module,
            *data.probe,
            eval_batch_size=config.eval_batch_size,
            eval_lr=config.eval_lr,
            eval_momentum=config.eval_momentum,
            eval_epoch=config.eval_epoch,
            epoch=epoch,
            seed=config.seed,
        )
    else:
        scores = probe_logistic_regression(
            module,
            *data.probe,
            eval_snippets=config.eval_snippets,
            eval_snippets_validation=config.eval_snippets_validation,
            seed=config.seed,
        )
    record = {"record": "evaluation", "epoch": epoch, "protocol": config.eval_protocol, **scores}
    record |= {"seconds": round(time.perf_counter() - started, 3)} | data.skipped
    append_record(config.metrics_file, record)
    records.append(record)
    print(f"eval_result in epoch{epoch}: {scores['accuracy']:.4f}", flush=True)
    if not scores.get("converged", True):
        print(
            "warning: the linear probe did not converge; its figures are a lower bound", flush=True
        )
    say_health(config, records)


def say_health(config: Config, records: Sequence[Record]) -> None:
    """Print what the last record shows of the training's health."""
    for line in health(records, config):
        print(line, flush=True)
