"""Records in words: the line of an epoch, what to be wary of, the summary of a run."""

import itertools
import math
from collections.abc import Callable, Sequence

from sola.config import Config
from sola.method.tsm import loss_landmarks
from sola.records import Record, best_evaluation, evaluations, gain

PLATEAU_MARGIN = 0.05  # of the way from plateau to floor
PLATEAU_EPOCHS = 10  # at the plateau, until it is said
ALIKE_SPREAD = 0.01  # of cosines that have collapsed, and a fifth of what it was
LARGEST_TANH = 0.99  # beyond, tanh passes under 2 % of the gradient on to alpha
FALLS = 3  # of the probe in a row, until it is said
EVALUATION_COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "roc_auc": "ROC-AUC",
    "average_precision": "AP",
    "majority_share": "majority",
}


def describe(record: Record, config: Config) -> str:
    """An epoch's record as a line."""
    way = _way_down(record["loss"], config)
    where = f"{way:.0%} of the way from plateau to floor" if way >= 0 else "not below the plateau"
    return (
        f"epoch {record['epoch']}/{config.epoch}  loss {record['loss']:.4f} ({where})  "
        f"tanh(alpha) {record['tanh_alpha']:+.4f}  {record['seconds']:.1f} s"
    )


def health(records: Sequence[Record], config: Config) -> list[str]:
    """What the last record shows that those before did not: lines on the health of the training."""
    if not records:
        return []
    kind = records[-1]["record"]
    now = [record for record in records if record["record"] == kind]
    checks = CHECKS_OF_EPOCHS if kind == "epoch" else CHECKS_OF_EVALUATIONS
    return [
        f"warning: {words(now, config)}"
        for shows, words in checks
        if shows(now, config) and not shows(now[:-1], config)
    ]


def _way_down(loss: float, config: Config) -> float:
    """0 at the plateau, 1 at the floor."""
    floor, plateau = loss_landmarks(config.tsm_size, config.oracle_coef, config.use_dissim_head)
    return (plateau - loss) / max(plateau - floor, 1e-12)


def _is_at_plateau(epochs: Sequence[Record], config: Config) -> bool:
    last = epochs[-PLATEAU_EPOCHS:]
    return len(last) == PLATEAU_EPOCHS and all(
        abs(_way_down(record["loss"], config)) < PLATEAU_MARGIN for record in last
    )


def _say_plateau(epochs: Sequence[Record], config: Config) -> str:
    if any(_way_down(record["loss"], config) > PLATEAU_MARGIN for record in epochs):
        return (
            f"the loss has gone back to its plateau for {PLATEAU_EPOCHS} epochs; --restart with a "
            f"lower learning_rate than {config.learning_rate}"
        )
    steps = sum(math.ceil(r.get("windows", 0) / config.batch_size) for r in epochs)
    return (
        f"the loss has been at its plateau for {PLATEAU_EPOCHS} epochs ({steps} steps so far): no "
        "temporal structure is learned yet. Features with a large common mean stay there for "
        "thousands of steps: let it go on; else try a larger learning_rate or a smaller batch_size"
    )


def _has_collapsed(epochs: Sequence[Record], _: Config) -> bool:
    spreads = [record["cosine_std"] for record in epochs if "cosine_std" in record]
    return bool(spreads) and spreads[-1] < min(ALIKE_SPREAD, max(spreads) / 5)


def _say_collapse(epochs: Sequence[Record], config: Config) -> str:
    return (
        f"the predicted cosines are all alike, spread {epochs[-1]['cosine_std']:.4f}: the "
        f"training has collapsed; --restart with a lower learning_rate than {config.learning_rate}"
    )


def _is_alpha_saturated(epochs: Sequence[Record], _: Config) -> bool:
    return bool(epochs) and abs(epochs[-1]["tanh_alpha"]) > LARGEST_TANH


def _say_alpha(epochs: Sequence[Record], config: Config) -> str:
    return (
        f"alpha has left the range where tanh is alive (tanh(alpha) = "
        f"{epochs[-1]['tanh_alpha']:+.4f}), so that it hardly moves any more; --restart with a "
        f"lower learning_rate than {config.learning_rate}"
    )


def _is_probe_falling(probes: Sequence[Record], _: Config) -> bool:
    scores = [record["accuracy"] for record in probes[-FALLS - 1 :]]
    falls = [after < before for before, after in itertools.pairwise(scores)]
    if len(falls) < FALLS or not all(falls):
        return False
    share, count = scores[-1], probes[-1].get("snippets", math.inf)
    error = math.sqrt(share * (1 - share) / count)  # standard, of an accuracy
    return scores[0] - scores[-1] > error


def _say_falling(probes: Sequence[Record], _: Config) -> str:
    best = best_evaluation(probes)
    return (
        f"the probe has fallen {FALLS} times in a row; the best epoch so far is {best['epoch']}, "
        f"accuracy {best['accuracy']:.4f}"
    )


Check = tuple[Callable[[Sequence[Record], Config], bool], Callable[[Sequence[Record], Config], str]]
CHECKS_OF_EPOCHS: list[Check] = [
    (_is_at_plateau, _say_plateau),
    (_has_collapsed, _say_collapse),
    (_is_alpha_saturated, _say_alpha),
]
CHECKS_OF_EVALUATIONS: list[Check] = [(_is_probe_falling, _say_falling)]


def summary(config: Config, records: list[Record]) -> str:
    """What a finished run prints: evaluations, the best epoch, warnings, where the time went."""
    lines = []
    best = best_evaluation(records)
    if best is None:
        lines.append("no linear probe was run")
    else:
        lines.append(evaluation_table(records))
        best_gain = gain(records, best)
        lines.append(
            f"best epoch by accuracy: {best['epoch']}, {best['accuracy']:.4f} "
            f"({best_gain:+.4f} against the untouched features)"
        )
        others = {
            name: max(evaluations(records), key=lambda record: record[name])["epoch"]
            for name in ("roc_auc", "average_precision")
        }
        if any(epoch != best["epoch"] for epoch in others.values()):
            lines.append(
                f"highest ROC-AUC: epoch {others['roc_auc']}, highest average precision: epoch "
                f"{others['average_precision']}"
            )
        if best_gain <= 0:
            lines.append("warning: by accuracy no epoch is above the untouched features, epoch 0")
    losses = [record["loss"] for record in records if record["record"] == "epoch"]
    if losses and _way_down(losses[-1], config) < PLATEAU_MARGIN:
        _, plateau = loss_landmarks(config.tsm_size, config.oracle_coef, config.use_dissim_head)
        lines.append(
            f"warning: the loss, {losses[-1]:.4f}, is not below the plateau, {plateau:.4f}, that a "
            "constant similarity reaches: no temporal structure is learned yet. It takes more "
            "steps (epoch, or a smaller batch_size) or another learning_rate; features with a "
            "large common mean stay there for long"
        )
    lines.append(time_by_stage(records))
    return "\n".join(lines)


def time_by_stage(records: Sequence[Record]) -> str:
    """Where the seconds of a run went."""

    def total(kind: str, field: str) -> float:
        return sum(record.get(field, 0.0) for record in records if record["record"] == kind)

    epochs, probing = total("epoch", "seconds"), total("evaluation", "seconds")
    reading, drawing = total("epoch", "seconds_reading"), total("epoch", "seconds_drawing")
    stages = {
        "computing": epochs - reading - drawing,
        "waiting for files": reading,
        "probing": probing,
        "drawing": drawing,
    }
    parts = ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in stages.items())
    return f"time: {_duration(epochs + probing)} ({parts})"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def evaluation_table(records: list[Record]) -> str:
    """The evaluations as a table, the best trained epoch marked; with the loss of their epochs."""
    losses = {r["epoch"]: r["loss"] for r in records if r["record"] == "epoch"}
    best = best_evaluation(records)
    heads = ["epoch", "loss", *EVALUATION_COLUMNS.values()]
    lines = ["".join(f"{head:>10}" for head in heads)]
    for record in evaluations(records):
        loss = losses.get(record["epoch"])
        cells = [f"{record['epoch']:>10}", f"{loss:>10.4f}" if loss is not None else f"{'-':>10}"]
        cells += [f"{record[name]:>10.4f}" for name in EVALUATION_COLUMNS]
        lines.append("".join(cells) + ("  <- best" if record is best else ""))
    return "\n".join(lines)
