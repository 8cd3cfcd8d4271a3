"""metrics.jsonl: one record an epoch and one an evaluation. What is printed is a view of it."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sola.config import Config
from sola.errors import SolaError, parsing
from sola.system.files import read_bytes

Record = dict[str, Any]
NEEDED = {  # numbers that a record of a kind has; all others may be absent, as in earlier versions
    "epoch": {"epoch", "loss", "tanh_alpha", "seconds"},
    "evaluation": {
        "epoch", "accuracy", "balanced_accuracy", "roc_auc", "average_precision", "majority_share",
    },
    "head_evaluation": {"epoch", "accuracy", "roc_auc", "roc_auc_std"},
}  # fmt: skip
OTHERS = {"record": str, "protocol": str, "converged": bool, "skipped": list}  # all else: numbers
LARGEST_EPOCH = 10**9
COMPARED = {  # what scores must share to be compared, of either probe
    "protocol", "snippets", "training_snippets", "seeds", "videos", "training_videos",
}  # fmt: skip


def to_line(record: Record) -> str:
    """A record as it stands in the file."""
    return json.dumps(record, allow_nan=False) + "\n"


def append_record(path: Path, record: Record) -> None:
    """Add a record to the file, on disk when this returns."""
    line = to_line(record)
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = f"cannot add the {len(line)} bytes of a record: {error.strerror}"
        raise SolaError(f"{path}: {what}") from error


def read_records(path: Path) -> list[Record]:
    """All records; a last line that a crash cut short is left out. Empty when there is no file."""
    if not path.exists():
        return []
    *lines, rest = read_bytes(path).split(b"\n")
    if b"\0" in rest:  # a disk's, not a killed process's
        print(f"warning: {path} ends in zeros, which may have taken records with them")
    records = []
    for number, line in enumerate(lines, start=1):
        with parsing(path, f"line {number} is damaged", "mend or remove that line", SolaError):
            record = json.loads(line)
            _check(record)
        records.append(record)
    return records


def _check(record: Any) -> None:
    for name, value in record.items():
        if name in OTHERS:
            is_good = isinstance(value, OTHERS[name])
        else:
            is_good = type(value) in (int, float) and math.isfinite(value)
        if not is_good:
            raise ValueError(name)
    if not NEEDED[record["record"]] <= record.keys():
        raise ValueError("not complete")
    if type(record["epoch"]) is not int or not 0 <= record["epoch"] <= LARGEST_EPOCH:
        raise ValueError("epoch")


def steps_until(records: Iterable[Record], epoch: int, batch_size: int) -> int:
    """Training steps of the recorded epochs up to this one; an earlier version recorded windows."""
    epochs = [r for r in records if r["record"] == "epoch" and r["epoch"] <= epoch]
    return sum(r.get("steps") or math.ceil(r.get("windows", 0) / batch_size) for r in epochs)


def evaluations(records: Iterable[Record]) -> list[Record]:
    """The linear probe's records, in order."""
    return [record for record in records if record["record"] == "evaluation"]


def comparable(records: Iterable[Record], protocol: str) -> list[Record]:
    """Evaluations that can be compared: of one protocol, on the same number of snippets.

    They are those like the last one of the protocol given, or like the last one where it has none.
    """
    found = evaluations(records)
    of_protocol = [record for record in found if record.get("protocol") == protocol]
    return _like_the_last(found, of_protocol or found)


def head_evaluations(records: Iterable[Record]) -> list[Record]:
    """The temporal head's records that can be compared with the last one, in order."""
    found = [record for record in records if record["record"] == "head_evaluation"]
    return _like_the_last(found, found)


def _like_the_last(found: list[Record], of: list[Record]) -> list[Record]:
    """Those that can be compared with the last of some; what an earlier version lacks is equal."""
    last = of[-1] if of else {}
    return [
        r for r in found if all(r[key] == last[key] for key in COMPARED & r.keys() & last.keys())
    ]


def with_spread(value: float, spread: float) -> str:
    """A figure and its deviation over seeds; that of one seed, which is 0, is not known."""
    return f"{value:.4f}{f' ± {spread:.4f}' if spread else ''}"


def head_spread(heads: Sequence[Record]) -> float:
    """Of the head's ROC-AUC over its seeds: the root mean square over evaluations."""
    return math.sqrt(sum(record["roc_auc_std"] ** 2 for record in heads) / max(len(heads), 1))


def best_head(heads: Sequence[Record]) -> Record | None:
    """The earliest trained epoch whose ROC-AUC lies within one spread of the highest."""
    trained = [record for record in heads if record["epoch"] >= 1]
    least = max((record["roc_auc"] for record in trained), default=0.0) - head_spread(heads)
    near = [record for record in trained if record["roc_auc"] >= least]
    return min(near, key=lambda record: record["epoch"], default=None)


def best_evaluation(scores: Iterable[Record]) -> Record | None:
    """Of comparable evaluations, the trained epoch of highest accuracy, the earliest on a tie."""
    trained = [record for record in evaluations(scores) if record["epoch"] >= 1]
    return max(trained, key=lambda record: record["accuracy"], default=None)


def gain(scores: Sequence[Record], evaluation: Record, figure: str = "accuracy") -> float | None:
    """A figure above that of the untouched features among comparable evaluations, if known."""
    untouched = [record for record in scores if record["epoch"] == 0]
    return evaluation[figure] - untouched[0][figure] if untouched else None


def is_gain_of_head(heads: Sequence[Record], evaluation: Record) -> bool:
    """Whether the head's ROC-AUC is above the untouched features' by twice the spread."""
    above = gain(heads, evaluation, "roc_auc")
    return above is None or above > 2 * head_spread(heads)


def saved_epochs(config: Config) -> list[int]:
    """Epochs whose checkpoint exists, ascending."""
    prefix = f"{config.exp_name}_"
    stems = [path.stem for path in config.run_folder.glob("*.pt") if path.stem.startswith(prefix)]
    numbers = [stem.removeprefix(prefix) for stem in stems]
    return sorted(int(number) for number in numbers if number.isdecimal() and len(number) <= 12)
