"""Features handed to a head, with annotations of all tiny videos.

Test files that use the fixture name this file as their plugin.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import process

from sola.export.heads import HEADS

FOLDERS = {
    "gtad-hacs": "tiny_0",
    "gtad-h5": "tiny_0_gtad-h5",
    "tridet": "tiny_0",
    "opentad": "tiny_0",
    "actionformer": "tiny_0_actionformer",
    "bmn": "tiny_0_bmn",
}


def folder_of(head):
    return Path("transformed_features", FOLDERS[head]).absolute()


def dump_of(head):
    """The folder that holds the files beside the features."""
    return folder_of(head) / HEADS[head].folder


@pytest.fixture
def database(config):
    """As of HACS: text for numbers, and gaps between the label ids; at 2 snippets a second."""
    database = {}
    for path in sorted(Path("HACS_DATA").glob("*/*.npy")):
        seconds = len(np.load(path)) / 2
        action = {"label": "swim", "label_id": 7, "segment": [str(seconds / 4), str(seconds / 2)]}
        actions = [action, {"label": "dive", "label_id": 3, "segment": [0, seconds]}]
        entry = {"subset": path.parent.name, "duration": str(seconds), "annotations": actions}
        database[path.stem] = entry
    return database


def write(database, file="a.json"):
    """The option that gives a head this file."""
    Path(file).write_text(json.dumps({"database": database}))
    return f"--annotations={file}"


def hand_over(head, database, *options):
    process(f"--for={head}", write(database), *options, load_model="0")
    outputs = [Path(o.removeprefix("--output=")) for o in options if o.startswith("--output=")]
    folder = outputs[0] / HEADS[head].folder if outputs else dump_of(head)
    return (folder / f"{head}.md").read_text()
