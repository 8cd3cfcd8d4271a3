"""metrics.jsonl: one record an epoch and one an evaluation. What is printed is a view of it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sola.system.cli import SolaError
from sola.system.files import read_bytes

Record = dict[str, Any]
OPTIONAL_NUMBERS = (  # which an earlier version may not have written
    "cosine_mean", "cosine_std", "update_ratio", "loss_floor", "loss_plateau", "windows",
    "seconds_reading", "seconds_drawing", "snippets", "seconds",
)  # fmt: skip
NUMBERS = {  # what the program itself reads of a record
    "epoch": ("loss", "tanh_alpha", "seconds"),
    "evaluation": (
        "accuracy", "balanced_accuracy", "roc_auc", "average_precision", "majority_share",
    ),
}  # fmt: skip


def to_line(record: Record) -> str:
    """A record as it stands in the file."""
    return json.dumps(record, allow_nan=False) + "\n"


def append_record(path: Path, record: Record) -> None:
    """Add a record to the file, on disk when this returns."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(to_line(record))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        size = len(to_line(record))
        raise SolaError(
            f"{path}: cannot add the {size} bytes of a record: {error.strerror}"
        ) from error


def read_records(path: Path) -> list[Record]:
    """All records; a last line that a crash cut short is left out. Empty when there is no file."""
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(read_bytes(path).split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            to_line(record)  # which no infinite number passes
            is_good = _is_record(record)
        except (ValueError, OverflowError, RecursionError):
            is_good = False
        if not is_good:
            raise SolaError(f"{path}: line {number} is damaged; mend or remove that line")
        records.append(record)
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or record.get("record") not in NUMBERS:
        return False
    numbers = [*NUMBERS[record["record"]], *(n for n in OPTIONAL_NUMBERS if n in record)]
    return (
        type(record.get("epoch")) is int
        and 0 <= record["epoch"] <= 10**9
        and all(type(record.get(n)) in (int, float) and abs(record[n]) < 1e300 for n in numbers)
    )


def evaluations(records: Iterable[Record]) -> list[Record]:
    """The linear probe's records, in order."""
    return [record for record in records if record["record"] == "evaluation"]


def best_evaluation(records: Iterable[Record]) -> Record | None:
    """The trained epoch of highest probe accuracy, the earliest on a tie; None without any."""
    trained = [record for record in evaluations(records) if record["epoch"] >= 1]
    return max(trained, key=lambda record: record["accuracy"], default=None)


def gain(records: Iterable[Record], evaluation: Record) -> float:
    """Accuracy of an evaluation above that of the untouched features; 0 when they have none."""
    untouched = [record for record in evaluations(records) if record["epoch"] == 0]
    return evaluation["accuracy"] - untouched[0]["accuracy"] if untouched else 0.0
