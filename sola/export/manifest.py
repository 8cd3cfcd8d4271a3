"""The manifest of an output folder: which features are complete, and what they were made from."""

import dataclasses
import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sola.data.features import FeatureFile
from sola.data.videos import feature_folders
from sola.export.formats import Form
from sola.system.cli import SolaError
from sola.system.files import read_bytes, write_atomically
from sola.system.ranks import is_first_rank

MANIFEST = "manifest.json"
MANIFEST_SECONDS = 10.0  # a killed run repeats at most so much work
ORIGIN = ("sha256", "dilations", "data_root")  # what features must share to lie side by side


@dataclass(frozen=True)
class Video:
    """A video to encode."""

    split: str
    name: str
    file: FeatureFile
    is_complete: bool  # an earlier run has written its features


class Manifest:
    """Which videos of an output folder are complete, and from which checkpoint.

    A folder with a manifest belongs to this program; one with features but without is left alone.
    Features of another origin are removed when this program has written them and may replace them,
    else refused; those of another form are refused.
    """

    def __init__(
        self,
        folder: Path,
        form: Form,
        splits: Mapping[str, Collection[str]],
        about: dict[str, Any],
        *,
        overwrite: bool,
        may_replace: bool,
    ) -> None:
        """splits: split -> names of the videos to encode. about: the rest of what the manifest
        says, ORIGIN and skipped files among it. overwrite: take no video as complete.
        may_replace: whether features of another origin may be removed.
        """
        self.folder, self.form = folder, form
        self.content = {
            "beside": [],
            **about,
            "form": dataclasses.asdict(form),
            "finished": False,
            "features": {split: {} for split in splits},
        }
        outputs = set(self._outputs(splits))
        if not self.path.exists():
            if outputs:
                raise SolaError(
                    f"{folder}: features of unknown origin, without {MANIFEST}; move them away"
                )
        else:
            earlier = _read_manifest(self.path)
            if earlier["form"] != self.content["form"]:
                raise SolaError(f"{folder}: holds features in another form; give another --output")
            other = [key for key in ORIGIN if earlier[key] != self.content[key]]
            if "data_root" in other and _same_folders(earlier, self.content):
                other.remove("data_root")
            if other:
                if not may_replace:
                    raise SolaError(
                        f"{folder}: holds features of another {' and '.join(other)}; --overwrite "
                        "replaces them"
                    )
                listed = self._paths(earlier["features"])
                unknown = outputs - listed - self._paths(splits)  # those are written anew
                if unknown:
                    raise SolaError(f"{min(unknown)}: of unknown origin; move it away")
                for path in outputs | listed:
                    path.unlink(missing_ok=True)
                print(f"{folder}: features of another {' and '.join(other)} removed", flush=True)
            elif not overwrite:
                self.content["features"] |= earlier["features"]
            self.content["beside"] = about.get("beside", earlier["beside"])
        self.save()
        self.saved_at = time.monotonic()

    @property
    def path(self) -> Path:
        return self.folder / MANIFEST

    def _paths(self, splits: Mapping[str, Collection[str]]) -> set[Path]:
        """The files of videos: split -> names."""
        return {
            self.form.path(self.folder, s, name) for s, names in splits.items() for name in names
        }

    def _outputs(self, splits: Iterable[str]) -> list[Path]:
        """Feature files that lie where this manifest's would."""
        folders = {self.form.path(self.folder, split, "").parent for split in splits}
        return [
            path
            for folder in folders
            for path in folder.glob(f"*.{self.form.format}")
            if not path.name.startswith(".")
        ]

    def holds(self, split: str, video: str, file: FeatureFile) -> bool:
        """Whether a video's features are complete: listed with this T, and there as listed."""
        path = self.form.path(self.folder, split, video)
        listed = self.content["features"][split].get(video) == file.length
        return listed and self.form.is_written(path, file.length, file.shape[1])

    def add(self, video: Video) -> None:
        """List a video as complete; on disk within MANIFEST_SECONDS."""
        self.content["features"][video.split][video.name] = video.file.length
        if time.monotonic() - self.saved_at > MANIFEST_SECONDS:
            self.save()
            self.saved_at = time.monotonic()

    def save(self, *, finished: bool = False) -> None:
        """Write the manifest to disk, if this is the first rank."""
        self.content["finished"] = finished
        if is_first_rank():
            write_atomically(self.path, json.dumps(self.content, indent=1).encode())


def _same_folders(*contents: dict[str, Any]) -> bool:
    """Whether the data_root of two manifests is the same, however it is written."""
    first, second = (
        [folder.resolve() for folder in feature_folders(content["data_root"])]
        for content in contents
    )
    return first == second


def files_beside(folder: Path) -> list[str]:
    """Names of the files that this program has written beside the features of a folder."""
    path = folder / MANIFEST
    return _read_manifest(path)["beside"] if path.exists() else []


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
        content.setdefault("form", dataclasses.asdict(Form()))
        content.setdefault("beside", [])
        videos = content["features"].values()
        for split, names in content["features"].items():
            if any("/" in name or name in (".", "..") for name in (split, *names)):
                raise ValueError("a name that is a path")
        texts = [content["data_root"], *list(content["beside"])]
        is_text = all(isinstance(text, str) for text in texts)
        if all(isinstance(v, dict) for v in videos) and content.keys() >= set(ORIGIN) and is_text:
            return content
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise SolaError(f"{path}: damaged; remove its folder to compute the features anew")
