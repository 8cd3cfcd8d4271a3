"""What is handed over with the features: the files that a head reads, and how to set it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from sola.data.videos import SPLITS
from sola.errors import SolaError, encoded
from sola.export.formats import Form
from sola.export.ground_truth import ANNOTATIONS, ground_truth
from sola.export.heads import HEADS, Written, link_of
from sola.export.source import Sources
from sola.system.files import write_atomically

COMPARE = (
    "compare with untouched features and with a moving average by this same route "
    "(--load_model=0,moving_average:5,best): figures of another route differ for other reasons"
)
UNANNOTATED = "note: --annotations=JSON writes what it reads beside the features"
SEGMENTS = "annotations.json has segments cut to the features in training alone; score against it"


def check_place(head: str, folder: Path) -> None:
    """Raise SolaError for a folder of features that a head's loader takes for something else."""
    path = str(folder.absolute())
    way_out = "; write elsewhere with --output (or under another exp_name)"
    if head.startswith("gtad") and "," in path:
        raise SolaError(f"{path}: holds a comma, at which G-TAD divides feature_path{way_out}")
    if head == "gtad-h5" and "I3D" in path:
        raise SolaError(f"{path}: holds I3D, which G-TAD takes for its npy mode{way_out}")
    link = link_of(folder)
    if head == "gtad-hacs" and link.exists() and not link.is_symlink():
        raise SolaError(f"{link}: is in the way of the link that G-TAD needs{way_out}")


def handed_over(head: str, folder: Path, feature_dim: int, sources: Sources) -> dict[str, bytes]:
    """Name -> content of what a head is given beside the features: <head>.md and what it reads.

    feature_dim: C of the features.
    """
    form, prefix, truth = sources.form, _prefix(sources), None
    if sources.annotations:
        before = "" if form.prefix else prefix
        videos = {video.name.removeprefix(before): video for video in sources.videos}
        is_of_bmn = HEADS[head].is_of_bmn
        truth = ground_truth(sources.annotations, videos, prefix, is_of_bmn=is_of_bmn)
    written = Written(folder.absolute(), form, sources.videos, feature_dim, prefix, truth)
    return (truth.files if truth else {}) | {f"{head}.md": encoded(guide(head, written))}


def _prefix(sources: Sources) -> str:
    """What stands before the ids in all names of files: the form's prefix, or ActivityNet's v_.

    In split folders the names are the ids: two of the heads that read these know no prefix.
    """
    form, names = sources.form, [video.name for video in sources.videos]
    if form.prefix or form.layout == "split" or any(name in sources.annotations for name in names):
        return form.prefix
    return "v_" if all(name.startswith("v_") for name in names) else ""


def write_for_head(head: str, folder: Path, files: dict[str, bytes]) -> None:
    """Write what a head is given beside the features, and say what to set in it."""
    path, guide_file = folder / ANNOTATIONS, folder.absolute() / f"{head}.md"
    there = path.read_bytes() if path.exists() else None
    if there and ANNOTATIONS not in files and guide_file.exists():
        print(f"{guide_file}: stays, as there are no --annotations to write it anew")
        return
    if there and files.get(ANNOTATIONS, there) != there:
        for stale in (folder / f"{other}.md" for other in HEADS if other != head):
            if stale.exists():
                stale.unlink()
                print(f"{stale}: removed, since {ANNOTATIONS} changes; write it anew")
    if head == "gtad-hacs":
        link_for_gtad(folder)
    for name, content in files.items():
        write_atomically(folder / name, content)
    print(f"{files[guide_file.name].decode()}kept in {guide_file}")


def link_for_gtad(folder: Path) -> None:
    """A link beside the features with I3D in its name; one that is there is replaced."""
    link = link_of(folder)
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
    except OSError as error:
        raise SolaError(f"{link}: cannot be linked: {error.strerror}; write elsewhere") from error


def guide(name: str, written: Written) -> str:
    """Markdown: what to set in a head, what is in its files, and what goes wrong else."""
    head = HEADS[name]
    notes = [*written.truth.notes, SEGMENTS] if written.truth else [UNANNOTATED]
    notes += [*differences(name, written), *(f"trap: {trap}" for trap in head.traps), COMPARE]
    settings = f"```{head.language}\n{head.settings(written)}```"
    return f"# {name}\n\n{settings}\n\n" + "".join(f"* {note}\n" for note in notes)


def differences(name: str, written: Written) -> Iterator[str]:
    """In what the features differ from what a head expects."""
    head = HEADS[name]
    usual = Form(**head.form)
    for option, value in dataclasses.asdict(written.form).items():
        expected = getattr(usual, option)
        if option == "prefix" and all(v.name.startswith(expected) for v in written.videos):
            continue  # all names had it before
        if value != expected:
            yield f"note: {option} is {value}, {name} expects {expected}: adapt its loader"
    rates = sorted(axis.rate for axis in written.axes)
    if not head.knows_rates and not written.form.resize:
        if not rates:
            yield "warning: nothing tells the snippets a second; give --fps or --annotations"
        elif rates[0] < rates[-1]:
            span = f"{rates[0]:.3g} to {rates[-1]:.3g} snippets a second"
            yield f"warning: the videos have {span}, {name} knows one rate: use --resize"
    if len({round(axis.clip_snippets, 3) for axis in written.axes}) > 1:
        yield "warning: clips of another number of strides in each video; heads know one"
    splits = dict.fromkeys(video.split for video in written.videos)
    if usual.layout == "split" and not {*splits} <= {*SPLITS}:
        where = ", ".join(splits) or "one folder"
        yield f"note: {name} reads training/ and validation/, these are in {where} as the input"
