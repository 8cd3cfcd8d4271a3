"""Records in words: the line of an epoch, the summary of a run."""

from sola.config import Config
from sola.metrics import Record, best_evaluation, evaluations, gain
from sola.tsm import loss_landmarks

PLATEAU_MARGIN = 0.05  # of the way from plateau to floor
EVALUATION_COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "roc_auc": "ROC-AUC",
    "average_precision": "AP",
    "majority_share": "majority",
}


def describe(record: Record, config: Config) -> str:
    """An epoch's record as a line, saying so while the loss is at the plateau."""
    floor, plateau = loss_landmarks(config.tsm_size, config.oracle_coef, config.use_dissim_head)
    at_plateau = abs(record["loss"] - plateau) < PLATEAU_MARGIN * (plateau - floor)
    return (
        f"epoch {record['epoch']}/{config.epoch}  loss {record['loss']:.4f}  "
        f"tanh(alpha) {record['tanh_alpha']:+.4f}  {record['seconds']:.1f} s"
        + ("  at the plateau: no temporal structure yet" if at_plateau else "")
    )


def summary(config: Config, records: list[Record]) -> str:
    """What a finished run prints: evaluations as a table, the best epoch, what to be wary of."""
    lines = []
    best = best_evaluation(records)
    if best is None:
        lines.append("no linear probe was run")
    else:
        lines.append(evaluation_table(records))
        best_gain = gain(records, best)
        lines.append(
            f"best epoch: {best['epoch']}, accuracy {best['accuracy']:.4f} "
            f"({best_gain:+.4f} against the untouched features)"
        )
        if best_gain <= 0:
            lines.append("warning: no epoch is above the untouched features: --load_model=0")
    floor, plateau = loss_landmarks(config.tsm_size, config.oracle_coef, config.use_dissim_head)
    losses = [record["loss"] for record in records if record["record"] == "epoch"]
    if losses and losses[-1] > plateau - PLATEAU_MARGIN * (plateau - floor):
        lines.append(
            f"warning: the loss, {losses[-1]:.4f}, is not below the plateau, {plateau:.4f}, that a "
            "constant similarity reaches: no temporal structure is learned yet. It takes more "
            "steps (epoch, or a smaller batch_size) or another learning_rate; features with a "
            "large common mean stay there for long"
        )
    return "\n".join(lines)


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
