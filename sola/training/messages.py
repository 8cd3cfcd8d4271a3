"""Records in words: the line of an epoch, a run's summary."""

import math
from collections.abc import Sequence

from sola.config import Config
from sola.records import (
    Record,
    best_evaluation,
    best_head,
    comparable,
    evaluations,
    gain,
    head_evaluations,
    head_spread,
    is_gain_of_head,
    steps_until,
    with_spread,
)
from sola.training.health import error_of, state_of, ways_down

EVALUATION_COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "roc_auc": "ROC-AUC",
    "average_precision": "AP",
    "majority_share": "majority",
}
SHORTEST_FORETOLD = 60.0  # seconds


def describe(records: Sequence[Record], config: Config) -> str:
    """The last epoch's record as a line."""
    record = records[-1]
    (way,) = ways_down([record], config)
    where = f"{way:.0%} of the way from plateau to floor" if way >= 0 else "not below the plateau"
    state = state_of(records, config)
    return (
        f"epoch {record['epoch']}/{config.epoch}  loss {record['loss']:.4f} ({where})  "
        f"tanh(alpha) {record['tanh_alpha']:+.4f}  {record['seconds']:.1f} s"
        f"{f'  [{state.kind}]' if state.words else ''}"
    )


def describe_head(records: Sequence[Record]) -> str:
    """The last record, a temporal head's, as a line."""
    record = records[-1]
    above = gain(head_evaluations(records), record, "roc_auc")
    figures = {"ROC-AUC": "roc_auc", "accuracy": "accuracy", "unscaled ROC-AUC": "roc_auc_unscaled"}
    parts = [f"{name} {with_spread(record[f], record[f'{f}_std'])}" for name, f in figures.items()]
    against = f" (ROC-AUC {above:+.4f} against epoch 0)" if above and record["epoch"] else ""
    return f"temporal head in epoch {record['epoch']}: {', '.join(parts)}{against}"


def expected_end(steps: int, seconds: float, left: int) -> list[str]:
    """When a training will end whose steps took so many seconds; nothing where that is soon."""
    expected = seconds / steps * left
    line = (
        f"{steps} steps took {seconds:.2f} s: about {_duration(expected)} for the {left:,} that "
        "are left, evaluations apart"
    )
    return [line] if expected >= SHORTEST_FORETOLD else []


def summary(config: Config, records: Sequence[Record]) -> str:
    """What a finished run prints: evaluations, the best epochs, its state, where the time went."""
    scores = comparable(records, config.eval_protocol)
    lines = _probe_lines(config, records, scores) if scores else ["no linear probe was run"]
    lines += _head_lines(head_evaluations(records))
    state = state_of(records, config, has_ended=True)
    lines += [f"warning: {state.kind}: {state.words}"] if state.words else []
    return "\n".join([*lines, time_by_stage(records)])


def _head_lines(heads: Sequence[Record]) -> list[str]:
    """The epoch that the temporal head finds best, and whether it gains by it."""
    best = best_head(heads)
    if best is None:
        return []
    line = f"best epoch by the temporal head: {best['epoch']}, ROC-AUC {best['roc_auc']:.4f}"
    above, spread = gain(heads, best, "roc_auc"), head_spread(heads)
    if above is None:
        return [line]
    spreads = f", {above / spread:+.1f} times its spread over seeds" if spread else ""
    lines = [f"{line} ({above:+.4f} against the untouched features{spreads})"]
    if not is_gain_of_head(heads, best):
        lines.append("warning: a head of this kind does not gain from these features")
    return lines


def _probe_lines(config: Config, records: Sequence[Record], scores: Sequence[Record]) -> list[str]:
    """The evaluations, and the best of those that can be compared."""
    best = best_evaluation(scores)
    lines = evaluation_table(config, records, scores, best)
    if best is None:
        return lines
    above = gain(scores, best)
    against = ""
    if above is not None:
        is_noise = 0 < above <= error_of(best)
        noise = f", within its standard error, {error_of(best):.4f}" if is_noise else ""
        against = f" ({above:+.4f} against the untouched features{noise})"
    lines.append(f"best epoch by accuracy: {best['epoch']}, {best['accuracy']:.4f}{against}")
    auc, precision = (
        max(scores, key=lambda record, field=field: record.get(field, -math.inf))["epoch"]
        for field in ("roc_auc", "average_precision")
    )
    if {auc, precision} != {best["epoch"]}:
        lines.append(f"highest ROC-AUC: epoch {auc}, highest average precision: epoch {precision}")
    if above is not None and above <= 0:
        lines.append("warning: by accuracy no epoch is above the untouched features, epoch 0")
    return lines


def evaluation_table(
    config: Config, records: Sequence[Record], scores: Sequence[Record], best: Record | None
) -> list[str]:
    """All evaluations with the loss of their epochs, the best of the comparable ones marked."""
    losses = {r["epoch"]: r["loss"] for r in records if r["record"] == "epoch"}
    heads = {r["epoch"]: r for r in head_evaluations(records)}
    names = ["epoch", "steps", "loss", *EVALUATION_COLUMNS.values()]
    names += ["head AUC", "±"] if heads else []
    lines = ["".join(f"{name:>10}" for name in names)]
    for record in evaluations(records):
        values = [losses.get(record["epoch"]), *map(record.get, EVALUATION_COLUMNS)]
        if heads:
            head = heads.get(record["epoch"], {})
            values += [head.get("roc_auc"), head.get("roc_auc_std") or None]  # 0: of one seed
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        mark = "  <- best" if record is best else ""
        mark += "" if record in scores else "  other protocol or snippets, not compared"
        mark += "" if record.get("converged", True) else "  probe not converged"
        steps = steps_until(records, record["epoch"], config.batch_size)
        lines.append("".join(f"{cell:>10}" for cell in [record["epoch"], steps, *cells]) + mark)
    return lines


def time_by_stage(records: Sequence[Record]) -> str:
    """Where the seconds of a run went."""

    def total(kind: str, field: str) -> float:
        return sum(record.get(field, 0.0) for record in records if record["record"] == kind)

    epochs = total("epoch", "seconds")
    probing, heads = total("evaluation", "seconds"), total("head_evaluation", "seconds")
    reading, drawing = total("epoch", "seconds_reading"), total("epoch", "seconds_drawing")
    stages = {
        "computing": epochs - reading - drawing,
        "waiting for files": reading,
        "probing": probing,
        **({"temporal head": heads} if heads else {}),
        "drawing": drawing,
    }
    parts = ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in stages.items())
    return f"time: {_duration(epochs + probing + heads)} ({parts})"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
