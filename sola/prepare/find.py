"""The feature files that --features names, whatever its folders are divided into."""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sola.data.annotations import split_of_names
from sola.data.features import FeatureFile, command_for_all
from sola.data.videos import SPLITS, feature_paths
from sola.errors import DataError, shown

FEWEST_FILES = 3  # whose axes are compared
TRUST = ", only of files you trust"
CONVERSIONS = {  # suffix -> what to import, too; what is in a file f; a caution
    ".npz": ("", "{k: x for k, x in n.load(f).items() if x.ndim > 1}", ""),
    ".csv": (
        "",
        "n.loadtxt(f, delimiter=',', ndmin=2, skiprows=int(f.read_text()[:1].isalpha()))",
        "",
    ),
    ".mat": (", scipy.io as m", "{k: x for k, x in m.loadmat(f).items() if n.size(x) > 1}", ""),
    ".pt": (", torch", "torch.load(f, 'cpu', weights_only=True)", ""),
    ".pkl": (", pickle", "pickle.loads(f.read_bytes())", TRUST),
    ".h5": (", h5py", "h5py.File(f)", ""),
}
CONVERSIONS |= {".pth": CONVERSIONS[".pt"], ".hdf5": CONVERSIONS[".h5"]}
CONVERSIONS[".pickle"] = CONVERSIONS[".pkl"]
LINKS = (  # folders rgb and flow of links to <video>_rgb.npy and <video>_flow.npy
    "import sys, glob, pathlib as p; a = p.Path(sys.argv[1]).absolute(); [(o.parent.mkdir("
    "parents=True, exist_ok=True), o.symlink_to(a / f)) for k in ('rgb', 'flow') for f in glob.glob"
    "('**/*_' + k + '.npy', root_dir=a, recursive=True) "
    "for o in [p.Path(k, f[: f.rindex('_')] + '.npy')]]"
)


def find_features(folders: Sequence[Path]) -> dict[str, dict[str, list[str]]]:
    """Split -> video -> its file in each folder, sorted; the split is "" where there are none.

    A file that a video lacks in one of the folders is among them. Raises DataError, saying what
    helps, for what holds no <video>.npy, or holds a video twice.
    """
    divided = [_split_folders(folder) for folder in folders]  # split -> its folders, of each
    found = {}
    for split in SPLITS if any(divided) else [""]:
        files = []  # of each folder: where the split would be, and video -> its file
        for folder, roots in zip(folders, divided, strict=True):
            if split and split not in roots:
                what = "no such folder, though the other split's is"
                raise DataError(f"--features: {folder / split}: {what}")
            files.append((folder / split, _files(folder, roots.get(split, [folder]))))
        found[split] = {
            v: [of.get(v, f"{place}/{v}.npy") for place, of in files]
            for v in sorted(set().union(*(of for _, of in files)))
        }
    return found


def _split_folders(folder: Path) -> dict[str, list[Path]]:
    """Split -> the folders in a folder that are for it; says which are by way of exception."""
    if not folder.is_dir():
        raise _without_npy(folder)
    names = {path.name.lower() for path in _subfolders(folder)}
    split_of = split_of_names(names)
    if len({*split_of.values()}) < 2:  # a lone val or test stands for what it is called
        split_of = split_of_names(names | {"training"})
    roots = {}
    for path in _subfolders(folder):
        split = split_of.get(path.name.lower())
        if split:
            roots.setdefault(split, []).append(path)
            if not path.name.lower().startswith(split[:3]):
                print(f"note: {path}: taken for {split}")
    return roots


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path, roots: Sequence[Path]) -> dict[str, str]:
    """Video -> its file in roots, or in folders of classes there; folder: what all these are in."""
    found = {}
    for root in roots:
        direct = feature_paths(root)
        for files in [direct] if direct else map(feature_paths, _subfolders(root)):
            for video, path in files.items():
                if video in found:
                    what = f"{path} and {found[video]} have one name; rename or remove one, or join"
                    join = f"--features={os.path.dirname(found[video])},{os.path.dirname(path)}"
                    raise DataError(f"--features: {what} their folders with {join}")
                found[video] = path
    if not found:
        raise _without_npy(roots[0])
    pairs = [v for v in found if v.endswith("_rgb") and f"{v.removesuffix('_rgb')}_flow" in found]
    if 4 * len(pairs) > len(found):
        command = f'python -c "{LINKS}" {shlex.quote(str(folder))}'
        raise DataError(
            f"--features: {folder}: {len(pairs)} videos, as {shown(pairs[0])}, have a file _flow, "
            f"too; give --features=rgb,flow after this, which makes links: {command}"
        )
    return found


def _without_npy(place: Path) -> DataError:
    """What to say of a place that is no folder with npy files, and how to convert what is there."""
    holds = "is a file" if place.is_file() else "holds no .npy files"
    if not os.path.exists(place):
        return DataError(f"--features: {place}: no such folder")
    there = [f for depth in ("*", "*/*", "*/*/*") if place.is_dir() for f in place.glob(depth)]
    found = Counter(f.suffix for f in there or [place] if f.suffix in CONVERSIONS)
    if not found:
        return DataError(f"--features: {place}: {holds}; name a folder of <video>.npy, [T, C] each")
    suffix, count = found.most_common(1)[0]
    module, arrays, caution = CONVERSIONS[suffix]
    code = (  # a file of several arrays gives as many: by their names, which may be videos
        f"import sys, pathlib as p, numpy as n{module}; a = sys.argv[1:]; [n.save(f.parent / "
        "((f.stem if len(h) < 2 else k if len(a) < 2 else f.stem + '_' + k) + '.npy'), "
        "x.detach().float() if hasattr(x, 'detach') else n.float32(x)) "
        f"for f in map(p.Path, a) for d in [{arrays}] "
        "for h in [d if hasattr(d, 'items') else {0: d}] for k, x in h.items()]"
    )
    command = (
        f"find -L {shlex.quote(str(place))} -name '*{suffix}' -exec python -c \"{code}\" {{}} +"
    )
    what = f"{holds}, {count} of {suffix}; give a folder of .npy files, which this writes beside"
    return DataError(f"--features: {place}: {what}{caution}: {command}")


def check_axes(videos: dict[str, FeatureFile]) -> list[str]:
    """Notes on files of one size, which do not show which axis is time.

    Raises DataError for channels first: the first axis is the same in all and the second is not,
    nor in most, as when a few have another width.
    """
    notes = []
    for files in zip(*(file.files for file in videos.values()), strict=True):
        firsts, seconds = (Counter(file.shape[axis] for file in files) for axis in (0, 1))
        if len(files) < FEWEST_FILES or len(firsts) > 1:
            continue
        (first,), (second, count) = firsts, seconds.most_common(1)[0]
        folder = os.path.commonpath([os.path.dirname(file.path) for file in files]) or "."
        if count == len(files):
            sizes = f"all {count} files are [{first}, {second}], taken as [T, C]"
            notes.append(f"note: {folder}: {sizes}; transpose them if it is the other way round")
        elif count <= len(files) / 2 or len(seconds) > 2:
            what = f"all files are [{first}, T], channels first, where [T, C] is wanted"
            command = command_for_all(folder, "transposed", "n.ascontiguousarray(x.T)")
            raise DataError(f"{folder}: {what}; this makes a folder of such: {command}")
    return notes
