"""The one verdict on a training: the state it is in, by all its records, and what follows.

The line of an epoch, warnings, the summary and the command to run next are views of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sola.config import Config
from sola.method.matching import landmarks
from sola.records import Record, best_evaluation, comparable, gain, steps_until

PLATEAU_MARGIN = 0.05  # of the way from plateau to floor
PLATEAU_EPOCHS = 10  # at the plateau, until it is said
EQUAL, ALWAYS_EQUAL = 0.01, 1e-5  # spread of the cosines: a fifth of what it was, or of all epochs
LARGEST_TANH = 0.99  # beyond, tanh passes under 2 % of the gradient on to alpha
ENOUGH_STEPS = 1_000  # that few videos should be trained for, before their loss is judged
FALLS = 3  # evaluations below the best, until it is said
LOWER_RATE = 5.0


@dataclass(frozen=True)
class State:
    """What a training is: learning, at or above its plateau, collapsed, saturated, past its best.

    words: what is seen, and what helps; none while it learns. remedy: arguments of the command that
    helps: settings, --restart, or --check of prepare.
    """

    kind: str
    words: str = ""
    remedy: tuple[str, ...] = ()


def state_of(records: Sequence[Record], config: Config, *, has_ended: bool = False) -> State:
    """The state by all records so far; the worst one that holds.

    has_ended: all is on record, so that a loss that is not below its plateau need not stay there.
    """
    epochs = [record for record in records if record["record"] == "epoch"]
    scores = comparable(records, config.eval_protocol)
    found = _past_its_best(scores)
    if epochs:
        ways, lasts = ways_down(epochs, config), 1 if has_ended else PLATEAU_EPOCHS
        plateau = None if has_gained(scores) else _at_plateau(epochs, ways, lasts, config)
        found = _collapsed(epochs, ways, config) or _saturated(epochs, config) or plateau or found
    return found or State("learning")


def news(records: Sequence[Record], config: Config) -> list[str]:
    """A warning, where the last record has changed the state."""
    state = state_of(records, config)
    is_new = bool(state.words) and state.kind != state_of(records[:-1], config).kind
    return [f"warning: {state.kind}: {state.words}"] if is_new else []


def ways_down(epochs: Sequence[Record], config: Config) -> list[float]:
    """How far each epoch's loss has come: 0 at the plateau, 1 at the floor."""
    floor, plateau = landmarks(config)
    return [(plateau - record["loss"]) / max(plateau - floor, 1e-12) for record in epochs]


def error_of(evaluation: Record) -> float:
    """The standard error of an accuracy; 0 where the number of snippets is not on record."""
    accuracy = evaluation["accuracy"]
    return math.sqrt(accuracy * (1 - accuracy) / evaluation.get("snippets", math.inf))


def has_gained(scores: Sequence[Record]) -> bool:
    """Whether the probe is above the untouched features by twice its standard error."""
    best = best_evaluation(scores)
    return best is not None and (gain(scores, best) or 0.0) > 2 * error_of(best)


def _collapsed(epochs: Sequence[Record], ways: list[float], config: Config) -> State | None:
    """Nearly equal cosines; where nothing is learned yet they are the best, so not there."""
    spreads = [record["cosine_std"] for record in epochs if "cosine_std" in record]
    if spreads and max(spreads[0], spreads[-1]) < ALWAYS_EQUAL:
        return State(
            "collapsed",
            "the predicted cosines have been equal from the first epoch on. Are the snippets of a "
            "video all alike, or their values beyond 1e18? python -m sola.prepare --check looks",
            ("--check",),
        )
    is_at_plateau = abs(ways[-1]) < PLATEAU_MARGIN > max(ways)
    if is_at_plateau or not spreads or spreads[-1] >= min(EQUAL, max(spreads) / 5):
        return None
    what = f"the predicted cosines are nearly equal, standard deviation {spreads[-1]:.4f}"
    return _to_begin_anew("collapsed", what, config)


def _saturated(epochs: Sequence[Record], config: Config) -> State | None:
    tanh_alpha = epochs[-1].get("tanh_alpha", 0.0)
    what = f"tanh(alpha) is {tanh_alpha:+.4f}, so that alpha hardly moves any more"
    is_saturated = abs(tanh_alpha) > LARGEST_TANH
    return _to_begin_anew("saturated", what, config) if is_saturated else None


def _at_plateau(
    epochs: Sequence[Record], ways: list[float], lasts: int, config: Config
) -> State | None:
    """So many last epochs at the plateau; one alone, at the end, may also be above it."""
    last, loss = ways[-lasts:], epochs[-1]["loss"]
    if len(last) < lasts or max(last) >= PLATEAU_MARGIN:
        return None
    if lasts > 1 and min(last) <= -PLATEAU_MARGIN:
        return None
    if max(ways) > PLATEAU_MARGIN:
        what = f"the loss, {loss:.4f}, was below it before"
        return _to_begin_anew("back at its plateau", what, config)
    steps = steps_until(epochs, config.epoch, config.batch_size)
    return State(
        "at its plateau" if ways[-1] > -PLATEAU_MARGIN else "above its plateau",
        f"the loss, {loss:.4f}, is {'hardly' if ways[-1] > 0 else 'not'} below the "
        f"{landmarks(config)[1]:.4f} that a constant similarity reaches, after {steps:,} steps: no "
        "temporal structure is learned yet. Features with a large common mean stay there for "
        "thousands of steps: go on with more epochs",
        (f"epoch={more_epochs(epochs, config)}",),
    )


def is_short(records: Sequence[Record], config: Config) -> bool:
    """Whether a run has ended before ENOUGH_STEPS."""
    return steps_until(records, config.epoch, config.batch_size) < ENOUGH_STEPS


def more_epochs(records: Sequence[Record], config: Config) -> int:
    """With how many epochs to go on: twice as many, or those that make ENOUGH_STEPS."""
    done = max((record["epoch"] for record in records if record["record"] == "epoch"), default=0)
    steps = max(1, steps_until(records, done, config.batch_size))
    return max(2 * config.epoch, math.ceil(ENOUGH_STEPS * done / steps))


def _to_begin_anew(kind: str, what: str, config: Config) -> State:
    rate = config.learning_rate
    words = f"{what}; begin anew with a lower learning_rate than {rate:g}"
    return State(kind, words, (f"learning_rate={rate / LOWER_RATE:.2g}", "--restart"))


def _past_its_best(scores: Sequence[Record]) -> State | None:
    """The last evaluations are all below an earlier one, by more than its standard error."""
    best = max(scores, key=lambda record: record["accuracy"], default=None)
    after = [record["accuracy"] for record in scores if record["epoch"] > best["epoch"]]
    if len(after) < FALLS or max(after[-FALLS:]) >= best["accuracy"] - error_of(best):
        return None
    what = f"epoch {best['epoch']}" if best["epoch"] else "the untouched features, epoch 0,"
    return State(
        "past its best",
        f"the last {FALLS} evaluations are below {what} with accuracy {best['accuracy']:.4f}",
    )
