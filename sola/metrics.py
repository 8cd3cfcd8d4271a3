"""metrics.jsonl: one record an epoch and one an evaluation. What is printed is a view of it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sola.runtime import SolaError

Record = dict[str, Any]
KEYS = {"record", "epoch"}  # of every record


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
        raise SolaError(f"{path}: cannot add a record: {error.strerror}") from error


def read_records(path: Path) -> list[Record]:
    """All records; a last line that a crash cut short is left out. Empty when there is no file."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    try:
        records = [json.loads(line) for line in lines[:-1]]
        return [record for record in records if record.keys() >= KEYS]
    except (ValueError, AttributeError, RecursionError) as error:
        raise SolaError(f"{path}: damaged; every line must be a JSON record") from error


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
