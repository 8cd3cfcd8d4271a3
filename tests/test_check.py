"""--check: a finished dump read as a head's loader would, and what would stop it there."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import FEATURE_DIM, process

from sola.errors import SolaError
from sola.export.heads import HEADS


@pytest.fixture
def option(annotations, config):
    """--annotations of all tiny videos."""
    Path("a.json").write_text(json.dumps({"database": annotations}))
    return "--annotations=a.json"


def dumped(head, option):
    """A dump, and the folder of its files."""
    process(f"--for={head}", option, "--output=new", load_model="0")
    return Path("new", HEADS[head].folder)


def check(head):
    process(f"--for={head}", "--output=new", "--check", load_model="0")


def refused(head, capsys):
    """What is said of a dump that is refused."""
    capsys.readouterr()
    with pytest.raises(SolaError, match=rf"new\S*: \d+ problems, as above, would stop {head}"):
        check(head)
    return re.findall(r"^problem: (.*)$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("head", HEADS)
def test_a_good_dump_passes_and_nothing_is_written(option, head, capsys):
    folder = dumped(head, option)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    check(head)
    assert f"{folder.absolute()}: {head} reads all 21 videos\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_several_dumps_are_checked(option, capsys):
    arguments = ["--for=opentad", option]
    process(*arguments, load_model="0,moving_average:3")
    capsys.readouterr()
    process(*arguments, "--check", load_model="0,moving_average:3")
    assert capsys.readouterr().out.count("opentad reads all 21 videos") == 2


def test_resized_features_pass(option):
    for head in ("opentad", "actionformer"):
        process(f"--for={head}", option, "--resize=64", f"--output={head}", load_model="0")
        process(f"--for={head}", f"--output={head}", "--resize=64", "--check", load_model="0")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def renumber(content):
    for entry in content["database"].values():
        for action in entry["annotations"]:
            action["label_id"] += 1


def move_segments(content):
    for video in ("t5", "v5"):
        content["database"][video]["annotations"][0]["segment"] = [900, 901]


def lead_elsewhere(folder):
    Path("I3D_new").unlink()
    Path("I3D_new").symlink_to("HACS_DATA")


def shorten(folder):
    path = folder / "opentad.md"
    path.write_text(path.read_text().replace("'max_seq_len': 576", "'max_seq_len': 48"))


def odd(folder):
    path = folder / "actionformer.md"
    path.write_text(path.read_text().replace("max_seq_len: 576", "max_seq_len: 1024"))


def save(name, *shape):
    return lambda folder: np.save(folder / name, np.ones(shape, np.float32))


def replace(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


ANNOTATIONS, OF_BMN = "annotations.json", r"video_info\.csv and anet_anno\.json have other videos"
PROBLEMS = {  # what -> head, what is done to its dump, what is said
    "unfinished": (
        "tridet",
        lambda folder: edit(folder / "manifest.json", lambda c: c.update(finished=False)),
        "not finished: write it once more",
    ),
    "missing": (
        "actionformer",
        lambda folder: (folder / "t5.npy").unlink(),
        r"t5: \S+new/t5\.npy: cannot be read: No such file",
    ),
    "missing h5": (
        "gtad-h5",
        lambda folder: (folder / "v_t5.h5").unlink(),
        r"t5: \S+new/v_t5\.h5: not readable",
    ),
    "missing csv": (
        "bmn",
        lambda folder: (folder / "v_t5.csv").unlink(),
        r"t5: \S+v_t5\.csv: not readable",
    ),
    "in the folder of another subset": (
        "tridet",
        lambda folder: shutil.move(folder / "training/t5.npy", folder / "validation/t5.npy"),
        r"t5: \S+new/training/t5\.npy: cannot be read",
    ),
    "width": ("opentad", save("training/t5.npy", 54, 17), "t5: 17 channels, the head is set to 16"),
    "width of csv": ("bmn", replace("v_t5.csv", ",f15\n", "\n"), "t5: 15 channels"),
    "length": (
        "tridet",
        save("training/t5.npy", 99, FEATURE_DIM),
        r"t5: T is 99, 27 s at 2 a second make another",
    ),
    "bins": (
        "bmn",
        lambda folder: (folder / "v_t5.csv").write_text(
            "".join((folder / "v_t5.csv").read_text().splitlines(keepends=True)[:60])
        ),
        "t5: T is 59, not 100 as of all",
    ),
    "link": ("gtad-hacs", lead_elsewhere, r"\S+/I3D_new: does not lead to the features"),
    "no link": ("gtad-hacs", lambda folder: Path("I3D_new").unlink(), r"\S+/I3D_new: does not"),
    "gaps": (
        "actionformer",
        lambda folder: edit(folder / ANNOTATIONS, renumber),
        r"label ids \[1\] do not run from 0 without gaps",
    ),
    "segments": (
        "actionformer",
        lambda folder: edit(folder / ANNOTATIONS, move_segments),  # in validation: no problem
        "t5: no segment lies within its features, training stops there",
    ),
    "sequence length": ("opentad", shorten, "t5: T is 54, beyond a max_seq_len of 48"),
    "levels": ("actionformer", odd, "max_seq_len is 1024: must be a multiple of 576"),
    "table": ("bmn", replace("video_info.csv", "v_t5,", "v_t55,"), OF_BMN),
    "json": ("gtad-h5", replace("anet_anno.json", '"v_t5"', '"t5"'), OF_BMN),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_what_would_stop_a_loader_is_said(option, capsys, what):
    head, change, words = PROBLEMS[what]
    change(dumped(head, option))
    said = refused(head, capsys)
    assert any(re.match(words, problem) for problem in said), said
    if what == "no link":  # under which nothing is found, either; the first are shown
        assert len(said) == 10
    elif what == "sequence length":
        assert all("beyond a max_seq_len of 48" in p for p in said[:-1])
        assert said[-1] == "max_seq_len is 48: must be a multiple of 576"
    else:
        assert len(said) == 1


def test_what_cannot_be_checked(option):
    with pytest.raises(SolaError, match="--check: is for a head, give --for"):
        process("--check", load_model="0")
    with pytest.raises(SolaError, match="new: holds no features of this program; write them first"):
        check("tridet")
    process("--output=new", load_model="0")
    with pytest.raises(SolaError, match=r"annotations\.json: is missing; write it with --for and"):
        check("tridet")
    folder = dumped("tridet", option)
    with pytest.raises(SolaError, match=r"opentad\.md: is missing; write it with --for and"):
        check("opentad")
    for text in ("", "[]", '{"prefix": "", "database": {"a": {"subset": "training"}}}'):
        (folder / ANNOTATIONS).write_text(text)
        with pytest.raises(SolaError, match=r"annotations\.json: not readable \(.*--overwrite$"):
            check("tridet")


@pytest.mark.parametrize("damage", ["guide", "subset", "duration", "form"])
def test_damaged_files_are_one_line(option, damage):
    folder = dumped("tridet", option)
    if damage == "guide":
        (folder / "tridet.md").write_bytes(b"\xff")
    elif damage == "form":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"resize_mode"', '"resie_mode"'))
    else:
        content = json.loads((folder / "annotations.json").read_text())
        content["database"]["t5"][damage] = ["odd"]
        (folder / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(SolaError):
        check("tridet")


@pytest.mark.parametrize("head", ["bmn", "gtad-hacs"])
def test_names_of_any_kind_are_written_and_read(workplace, annotations, config, head):
    for number, name in enumerate(("a\nb", "c\u2028d", "e\udcff")):
        (workplace / f"HACS_DATA/training/t{6 + number}.npy").rename(
            workplace / f"HACS_DATA/training/{name}.npy"
        )
        annotations[name] = annotations.pop(f"t{6 + number}")
    Path("a.json").write_text(json.dumps({"database": annotations}))
    dumped(head, "--annotations=a.json")
    if head == "gtad-hacs":
        check(head)
