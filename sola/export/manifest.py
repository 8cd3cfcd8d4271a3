"""The manifest of an output folder: what its features were made from, and whether all are there.

A folder with a manifest is a dump, and the feature files in its split folders are this program's.
It lists none of them: each appears whole, and only ever beside a manifest of its own origin. For
those of another are removed first, then the manifest is written, then videos are encoded.
"""

import dataclasses
import glob
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from sola.data.index_files import feature_folders
from sola.errors import SolaError, check_path, parsing
from sola.export.formats import Form
from sola.export.ground_truth import ANNOTATIONS
from sola.system.files import clear_temporary, read_bytes, write_atomically

MANIFEST = "manifest.json"
NOTHING = {"splits": [], "beside": [], "annotations": None}  # of a dump that holds nothing yet
ORIGIN = ("sha256", "dilations", "data_root")  # what features must share to lie side by side


def make_ready(
    folder: Path,
    form: Form,
    about: dict[str, Any],
    inputs: Collection[str],
    *,
    overwrite: bool,
    may_replace: bool,
) -> dict[str, Any]:
    """Let a folder hold features of one origin only, and a manifest of it; returns its content.

    about: what the manifest says: ORIGIN, splits, beside (names of files for heads), annotations
    (what these are made from, or None), and more. inputs: real paths that are read. overwrite:
    remove features of the same origin, too. may_replace: whether those of another may be removed.
    Raises SolaError, with nothing changed, where something that is not this dump's is in the way.
    """
    content = about | {"form": dataclasses.asdict(form)}
    earlier = read_manifest(folder) or content | NOTHING
    if earlier["form"] != content["form"]:
        raise SolaError(f"{folder}: holds features in another form; give another --output")
    annotations = about["annotations"] or earlier["annotations"]
    is_other = earlier["annotations"] not in (None, annotations)
    if is_other and (folder / ANNOTATIONS).exists() and not overwrite:
        what = f"{folder / ANNOTATIONS}: was made from other --annotations, or for another --fps"
        raise SolaError(f"{what}; --overwrite replaces it, and computes the features anew")
    own = {form.place(folder, split) for split in earlier["splits"]}
    places = own | {form.place(folder, split) for split in about["splits"]}
    beside = {folder / name for name in about["beside"]}
    for path in {folder, *places, *beside}:
        if os.path.realpath(path) in inputs:
            raise SolaError(f"{path}: holds the input, or leads to it; write to another folder")
    for path in _feature_files(places - own, form):
        raise SolaError(f"{path}: features of unknown origin, no {MANIFEST} knows them; move them")
    for path in beside - {folder / name for name in earlier["beside"]}:
        if os.path.lexists(path):
            raise SolaError(f"{path}: was not written by this program; write to another folder")
    other = [key for key in ORIGIN if _origin(earlier)[key] != _origin(content)[key]]
    said = f"features of another {' and '.join(other)}"
    if other and not may_replace:
        raise SolaError(f"{folder}: holds {said}; --overwrite replaces them")

    for place in places:
        clear_temporary(place, f"*.{form.format}")
    if other or overwrite or earlier.get("is_doubtful"):
        _remove(folder, form, own, earlier)
        earlier |= NOTHING
    if other or earlier.get("is_doubtful"):
        print(f"{folder}: {said if other else 'features of a dump that had not finished'} removed")
    for key in ("splits", "beside"):
        content[key] = sorted({*about[key], *earlier[key]})
    content["annotations"] = about["annotations"] or earlier["annotations"]
    write_manifest(folder, content, finished=False)
    return content


def _remove(folder: Path, form: Form, own: Collection[Path], earlier: dict[str, Any]) -> None:
    """Remove a dump's features and what is beside them; a kill here leaves its manifest."""
    if (folder / MANIFEST).exists():  # from now on it is not finished
        write_manifest(folder, earlier, finished=False)
    for path in [*_feature_files(own, form), *(folder / name for name in earlier["beside"])]:
        path.unlink(missing_ok=True)


def write_manifest(folder: Path, content: dict[str, Any], *, finished: bool) -> None:
    """Replace the manifest, also for the case of a power failure."""
    text = json.dumps(content | {"finished": finished}, indent=1)
    write_atomically(folder / MANIFEST, text.encode())


def _feature_files(places: Iterable[Path], form: Form) -> list[Path]:
    """Files and links that lie where, and are named as, features of this form are."""
    name = f"{glob.escape(form.prefix)}[!.]*.{form.format}"
    found = [path for place in places for path in place.glob(name)]
    return [path for path in found if path.is_symlink() or path.is_file()]


def _origin(content: dict[str, Any]) -> dict[str, Any]:
    """What is compared, with the folders of data_root as they are, however they are written."""
    folders = map(os.path.realpath, feature_folders(content["data_root"]))
    return content | {"data_root": list(folders)}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The content of a folder's manifest, with defaults for what it lacks; None without one."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    text = read_bytes(path)
    with parsing(path, "damaged", "remove its folder to compute the features anew", SolaError):
        content = json.loads(text)
        listed = content.get("features", {})  # split -> videos: an earlier version's
        return content | {
            "sha256": content["sha256"],
            "dilations": content["dilations"],
            "data_root": check_path(content["data_root"]),
            "form": dataclasses.asdict(Form()) | content.get("form", {}),
            "annotations": content.get("annotations"),
            "splits": [_plain_name(name) for name in content.get("splits", listed)],
            "beside": [_plain_name(name) for name in content.get("beside", [])],
            # an --overwrite of that version, when killed, left old files that it did not list
            "is_doubtful": "features" in content and content.get("finished") is not True,
        }


def _plain_name(name: str) -> str:
    if "/" in check_path(name) or name in (".", ".."):
        raise ValueError("a name that is a path")
    return name
