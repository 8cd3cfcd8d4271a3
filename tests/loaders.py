"""What the heads' loaders do with a dump, each restated in a few lines, settings read as pasted.

Each takes the folder of a dump and a subset, reads what <head>.md there tells, and gives every
video that the head would load. Where the real loader stops, an assertion or an exception does.
"""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import yaml


class Loaded(NamedTuple):
    """A video as a head has it."""

    features: np.ndarray  # [T, C]
    times: np.ndarray  # [T], seconds at which the head takes a snippet to stand
    segments: list  # of [start, end] in seconds
    labels: list  # a number each


def snippet(folder, head):
    """The settings in a dump's <head>.md, and their language."""
    return re.search(r"^```(\w+)\n(.*?)^```", Path(folder, f"{head}.md").read_text(), re.S | re.M)


def settings(folder, head):
    """The same, read as the head's configuration is."""
    language, text = snippet(folder, head).groups()
    if language == "yaml":
        return yaml.safe_load(text)
    if language == "python":
        names = {}
        exec(text, {}, names)
        return names
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    commands = [words[words.index(next(w for w in words if w.startswith("--"))):]
                for words in lines if words]  # fmt: skip
    return [{o.removeprefix("--"): v for o, v in zip(c[::2], c[1::2], strict=True)}
            for c in commands]  # fmt: skip


def database_of(path):
    return json.loads(Path(path).read_text())["database"]


def bins(count, seconds):
    """The middles of so many equal parts of so many seconds."""
    return (np.arange(count) + 0.5) / count * seconds


def interpolated(x, length):
    """F.interpolate, linear, corners not aligned."""
    places = np.clip((np.arange(length) + 0.5) * len(x) / length - 0.5, 0, len(x) - 1)
    return np.stack([np.interp(places, np.arange(len(x)), channel) for channel in x.T], axis=1)


def h5(path, name):
    with h5py.File(path) as file:
        return file[name][:]


def gtad_hacs(folder, subset, head="gtad-hacs"):
    """G-TAD, branch hacs: the form of feature_path says whether npy or h5 files are read."""
    options = settings(folder, head)[0]
    path, scale = options["feature_path"], int(options["temporal_scale"])
    assert path.endswith("/")  # else one h5 file of all videos
    assert "," not in path
    loaded = {}
    for video, info in database_of(options["video_anno"]).items():
        if subset not in info["subset"]:
            continue
        if "I3D" in path:
            x = np.load(f"{path}{subset}/{video}.npy").astype(np.float32)
        else:
            x = h5(f"{path}v_{video}.h5", f"v_{video}")
        assert x.shape[1] == int(options["feat_dim"])
        times = bins(scale, float(info["duration"]))
        loaded[video] = with_actions(interpolated(x, scale), times, info, subset)
    return loaded


def with_actions(features, times, info, subset):
    assert info["annotations"] or subset != "training"  # G-TAD stops at a video without segments
    actions = info["annotations"]
    labels = [action["label_id"] for action in actions]
    return Loaded(features, times, [action["segment"] for action in actions], labels)


def of_anet(options, subset, read):
    """BMN, and G-TAD's branch anet: a table of videos, and seconds corrected by frames."""
    content = json.loads(Path(options["video_anno"]).read_text())
    loaded = {}
    with open(options["video_info"], newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        video = row["video"]
        if subset not in row["subset"]:
            continue
        info = content[video]
        share = info["feature_frame"] / info["duration_frame"]
        x = read(options["feature_path"], video)
        assert x.shape == (int(options["temporal_scale"]), int(options["feat_dim"]))
        times = bins(len(x), share * info["duration_second"])
        loaded[video] = with_actions(x, times, info, subset)
    return loaded


def gtad_h5(folder, subset):
    """Both branches, which must see the same."""
    hacs = gtad_hacs(folder, subset, "gtad-h5")
    anet = of_anet(settings(folder, "gtad-h5")[1], subset, lambda path, v: h5(f"{path}{v}.h5", v))
    assert anet.keys() == {f"v_{video}" for video in hacs}
    for video, of_hacs in hacs.items():
        np.testing.assert_allclose(anet[f"v_{video}"].times, of_hacs.times, rtol=1e-4)
        np.testing.assert_allclose(anet[f"v_{video}"].features, of_hacs.features, atol=1e-6)
        assert anet[f"v_{video}"].segments == of_hacs.segments
    return hacs


def read_csv(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [f"f{i}" for i in range(len(header))]
    return np.array(rows, float)


def bmn(folder, subset):
    """BMN (JJBOY) of the folder above csv_mean_100."""
    options = settings(Path(folder, "csv_mean_100"), "bmn")[0]
    assert options.pop("mode") == "train"
    loaded = of_anet(options, subset, lambda path, v: read_csv(f"{path}csv_mean_100/{v}.csv"))
    return {video.removeprefix("v_"): item for video, item in loaded.items()}


def actionformer(folder, subset, head="actionformer"):
    """ActionFormer's anet.py; TriDet's hacs.py, which looks in a folder for each subset."""
    config = settings(folder, head)
    assert config["dataset_name"] == {"actionformer": "anet", "tridet": "hacs"}[head]
    assert config["test_cfg"] == {"multiclass_nms": True, "ext_score_file": None}
    dataset = config["dataset"]
    assert not dataset["force_upsampling"]
    for window in (7, 19):  # of anet_i3d.yaml and thumos_i3d.yaml
        for stride in (1, 2, 4, 8, 16, 32):
            assert dataset["max_seq_len"] % (stride * (window // 2) * 2) == 0
    json_db, label_dict, loaded = database_of(dataset["json_file"]), {}, {}
    for value in json_db.values():
        for action in value["annotations"]:
            label_dict[action["label"]] = action["label_id"]
    assert len(label_dict) == dataset["num_classes"]
    assert sorted(label_dict.values()) == [*range(dataset["num_classes"])]
    split = {"training": config["train_split"], "validation": config["val_split"]}[subset]
    for video, value in json_db.items():
        if value["subset"].lower() not in split:
            continue
        fps = dataset["default_fps"] or value["fps"]
        place, prefix = dataset["feat_folder"], dataset["file_prefix"]
        if head == "tridet":  # with line 149 of its loader mended
            place, prefix = f"{place}/{subset}", ""
        x = np.load(f"{place}/{prefix}{video}{dataset['file_ext']}").astype(np.float32)
        assert len(x) <= dataset["max_seq_len"]
        assert x.shape[1] == dataset["input_dim"]
        stride, frames = dataset["feat_stride"], dataset["num_frames"]
        offset = 0.5 * frames / stride
        actions = value["annotations"]
        in_grid = np.array([a["segment"] for a in actions]).reshape(-1, 2) * fps / stride - offset
        if subset == "training":
            assert (in_grid[:, 0] < len(x)).any()  # else torch.stack of nothing
        assert type(value["duration"]) is float
        loaded[video] = with_actions(x, (np.arange(len(x)) + offset) * stride / fps, value, "")
    return loaded


def tridet(folder, subset):
    return actionformer(folder, subset, "tridet")


def opentad(folder, subset):
    """OpenTAD: a path a split, a grid of frames; where it resizes, time is that of the video."""
    config = settings(folder, "opentad")
    part = config["dataset"][{"training": "train", "validation": "val"}[subset]]
    assert config["dataset"]["test"] == config["dataset"]["val"]
    assert isinstance(part["data_path"], str)  # a list joins channels
    labels = Path(part["class_map"]).read_text().splitlines()
    blocked = Path(part["block_list"]).read_text().splitlines()
    projection, loaded = config["model"]["projection"], {}
    for video, info in database_of(part["ann_file"]).items():
        names = part["subset_name"]
        if info["subset"] not in ([names] if isinstance(names, str) else names) or video in blocked:
            continue
        x = np.load(f"{part['data_path']}/{part['prefix']}{video}.npy")
        assert x.shape[1] == projection["in_channels"]
        if "resize_length" in config:
            assert not {"fps", "feature_stride", "offset_frames"} & part.keys()  # TypeError
            assert len(x) == config["resize_length"] == projection["max_seq_len"]
            times = bins(len(x), info["duration"])
        else:
            assert len(x) <= config["pad_len"] == projection["max_seq_len"]
            assert projection["max_seq_len"] % 192 == 0
            frames = np.arange(len(x)) * part["feature_stride"] + part["offset_frames"]
            times = frames / part["fps"]
        loaded[video] = with_actions(x, times, info, "")
        found = [labels.index(action["label"]) for action in info["annotations"]]
        assert found == loaded[video].labels
    return loaded


LOADERS = {
    "gtad-hacs": gtad_hacs,
    "gtad-h5": gtad_h5,
    "tridet": tridet,
    "opentad": opentad,
    "actionformer": actionformer,
    "bmn": bmn,
}
