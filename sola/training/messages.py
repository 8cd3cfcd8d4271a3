"""Records in words: the line of an epoch, warnings on a training's health, a run's summary."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

from sola.config import Config
from sola.method.matching import landmarks
from sola.records import Record, best_evaluation, comparable, evaluations, gain

PLATEAU_MARGIN = 0.05  # of the way from plateau to floor
PLATEAU_EPOCHS = 10  # at the plateau, until it is said
COLLAPSED_SPREAD = 0.01  # of the cosines, if it is also a fifth of what it was
LARGEST_TANH = 0.99  # beyond, tanh passes under 2 % of the gradient on to alpha
FALLS = 3  # of the probe in a row, until it is said
EVALUATION_COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "roc_auc": "ROC-AUC",
    "average_precision": "AP",
    "majority_share": "majority",
}
SHORTEST_FORETOLD = 60.0  # seconds
NOT_COMPARED = "  other protocol or snippets, not compared"


def describe(record: Record, config: Config) -> str:
    """An epoch's record as a line."""
    (way,) = _ways_down([record], config)
    where = f"{way:.0%} of the way from plateau to floor" if way >= 0 else "not below the plateau"
    return (
        f"epoch {record['epoch']}/{config.epoch}  loss {record['loss']:.4f} ({where})  "
        f"tanh(alpha) {record['tanh_alpha']:+.4f}  {record['seconds']:.1f} s"
    )


def expected_end(steps: int, seconds: float, left: int) -> list[str]:
    """When a training will end whose steps took so many seconds; nothing where that is soon."""
    expected = seconds / steps * left
    line = (
        f"{steps} steps took {seconds:.2f} s: about {_duration(expected)} for the {left:,} that "
        "are left, evaluations apart"
    )
    return [line] if expected >= SHORTEST_FORETOLD else []


def health(records: Sequence[Record], config: Config) -> list[str]:
    """What the last record shows that those before did not: lines on the health of the training."""
    if not records:
        return []
    if records[-1]["record"] == "epoch":
        now = [record for record in records if record["record"] == "epoch"]
        checks = CHECKS_OF_EPOCHS
    else:
        now = comparable(records, config.eval_protocol)
        checks = CHECKS_OF_EVALUATIONS
    found = [check(now, config) for check in checks if check(now[:-1], config) is None]
    return [f"warning: {words}" for words in found if words is not None]


def _ways_down(epochs: Iterable[Record], config: Config) -> list[float]:
    """How far each epoch's loss has come: 0 at the plateau, 1 at the floor."""
    floor, plateau = landmarks(config)
    return [(plateau - record["loss"]) / max(plateau - floor, 1e-12) for record in epochs]


def _find_plateau(epochs: Sequence[Record], config: Config) -> str | None:
    ways = _ways_down(epochs, config)
    last = ways[-PLATEAU_EPOCHS:]
    if len(last) < PLATEAU_EPOCHS or any(abs(way) >= PLATEAU_MARGIN for way in last):
        return None
    if max(ways) > PLATEAU_MARGIN:
        return (
            f"the loss has gone back to its plateau for {PLATEAU_EPOCHS} epochs; --restart with a "
            f"lower learning_rate than {config.learning_rate}"
        )
    steps = sum(math.ceil(record.get("windows", 0) / config.batch_size) for record in epochs)
    return (
        f"the loss has been at its plateau for {PLATEAU_EPOCHS} epochs ({steps} steps so far): no "
        "temporal structure is learned yet. Features with a large common mean stay there for "
        "thousands of steps: let it go on; else try a larger learning_rate or a smaller batch_size"
    )


def _find_collapse(epochs: Sequence[Record], config: Config) -> str | None:
    spreads = [record["cosine_std"] for record in epochs if "cosine_std" in record]
    if not spreads or spreads[-1] >= min(COLLAPSED_SPREAD, max(spreads) / 5):
        return None
    return (
        f"the predicted cosines are nearly equal, standard deviation {spreads[-1]:.4f}: the "
        f"training has collapsed; --restart with a lower learning_rate than {config.learning_rate}"
    )


def _find_saturation(epochs: Sequence[Record], config: Config) -> str | None:
    tanh_alpha = epochs[-1].get("tanh_alpha", 0.0) if epochs else 0.0
    if abs(tanh_alpha) <= LARGEST_TANH:
        return None
    return (
        f"tanh(alpha) is saturated at {tanh_alpha:+.4f}, so that alpha hardly moves any more; "
        f"--restart with a lower learning_rate than {config.learning_rate}"
    )


def _find_falling(scores: Sequence[Record], _: Config) -> str | None:
    last = [record["accuracy"] for record in scores[-FALLS - 1 :]]
    is_falling = all(after < before for before, after in itertools.pairwise(last))
    if len(last) <= FALLS or not is_falling:
        return None
    error = math.sqrt(last[-1] * (1 - last[-1]) / scores[-1].get("snippets", math.inf))  # standard
    best = best_evaluation(scores)
    if last[0] - last[-1] <= error or best is None:
        return None
    return (
        f"the probe has fallen {FALLS} times in a row; the best epoch so far is {best['epoch']}, "
        f"accuracy {best['accuracy']:.4f}"
    )


Check = Callable[[Sequence[Record], Config], str | None]  # what to say, if anything
CHECKS_OF_EPOCHS: list[Check] = [_find_plateau, _find_collapse, _find_saturation]
CHECKS_OF_EVALUATIONS: list[Check] = [_find_falling]


def summary(config: Config, records: Sequence[Record]) -> str:
    """What a finished run prints: evaluations, the best epoch, warnings, where the time went."""
    scores = comparable(records, config.eval_protocol)
    lines = _probe_lines(records, scores) if scores else ["no linear probe was run"]
    epochs = [record for record in records if record["record"] == "epoch"]
    best = best_evaluation(scores)
    has_gained = best is not None and (gain(scores, best) or 0) > 0
    way = _ways_down(epochs[-1:], config)[0] if epochs else 1.0
    if way < PLATEAU_MARGIN and not has_gained:
        lines.append(
            f"warning: the loss, {epochs[-1]['loss']:.4f}, is {'hardly' if way > 0 else 'not'} "
            "below the plateau, "
            f"{landmarks(config)[1]:.4f}, that a constant similarity reaches: no temporal "
            "structure is learned yet. It takes more steps (epoch, or a smaller batch_size) or "
            "another learning_rate; features with a large common mean stay there for long"
        )
    return "\n".join([*lines, time_by_stage(records)])


def _probe_lines(records: Sequence[Record], scores: Sequence[Record]) -> list[str]:
    """The evaluations, and the best of those that can be compared."""
    lines, best = [evaluation_table(records, scores)], best_evaluation(scores)
    if best is None:
        return lines
    above = gain(scores, best)
    against = "" if above is None else f" ({above:+.4f} against the untouched features)"
    lines.append(f"best epoch by accuracy: {best['epoch']}, {best['accuracy']:.4f}{against}")
    ranked = {"ROC-AUC": "roc_auc", "average precision": "average_precision"}
    highest = {
        name: max(scores, key=lambda record, field=field: record.get(field, -math.inf))["epoch"]
        for name, field in ranked.items()
    }
    if set(highest.values()) != {best["epoch"]}:
        lines.append(", ".join(f"highest {name}: epoch {epoch}" for name, epoch in highest.items()))
    if above is not None and above <= 0:
        lines.append("warning: by accuracy no epoch is above the untouched features, epoch 0")
    return lines


def evaluation_table(records: Sequence[Record], scores: Sequence[Record]) -> str:
    """All evaluations with the loss of their epochs, the best of the comparable ones marked."""
    losses = {r["epoch"]: r["loss"] for r in records if r["record"] == "epoch"}
    best = best_evaluation(scores)
    lines = ["".join(f"{head:>10}" for head in ("epoch", "loss", *EVALUATION_COLUMNS.values()))]
    for record in evaluations(records):
        values = [losses.get(record["epoch"]), *map(record.get, EVALUATION_COLUMNS)]
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        mark = "  <- best" if record is best else "" if record in scores else NOT_COMPARED
        lines.append("".join(f"{cell:>10}" for cell in [record["epoch"], *cells]) + mark)
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
