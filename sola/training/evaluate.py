"""The evaluation of a run: its probes, on record and in words."""

import time

from sola.config import Config
from sola.method.module import SoLaModule
from sola.probe import temporal_head
from sola.probe.protocols import PROTOCOLS
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
    if config.eval_head:
        _score_heads(config, epoch, module, inputs, records)


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


def _score_heads(
    config: Config, epoch: int, module: SoLaModule, inputs: Inputs, records: list[Record]
) -> None:
    """The temporal head's scores; of untouched features, too, where it was asked for later."""
    videos, seeds = temporal_head.seen(inputs.probed, config), config.eval_head_seeds
    like = temporal_head.counts(videos, seeds).items()
    there = {record["epoch"] for record in records if like <= record.items()}
    if not there:
        heads = f"{2 * seeds} heads of {temporal_head.STEPS} steps"
        less = "eval_head_seeds=1 or eval_head=false takes less"
        print(f"temporal head: {heads} at each evaluation, which takes a while; {less}", flush=True)
    for number in sorted({0, epoch} - there):
        started = time.perf_counter()
        encoder = module if number else None
        scores = temporal_head.probe(encoder, videos, seeds, module.alpha.device)
        record = {"record": "head_evaluation", "epoch": number, **scores}
        record |= {"seconds": round(time.perf_counter() - started, 3)} | inputs.skipped
        append_record(config.metrics_file, record)
        records.append(record)
        print(describe_head(records))
