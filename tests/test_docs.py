"""README and docs: commands and code run, links lead somewhere, tables are true."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
import yaml
from helpers import FEATURE_DIM, REPOSITORY, replace, two_folders
from loaders import settings

from sola.config import Config, load_config
from sola.data import synthetic
from sola.export.heads import HEADS
from sola.method.module import SoLaModule
from sola.training.loop import train

pytest_plugins = ["scripts"]

PATHS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXTS = {path.relative_to(REPOSITORY).as_posix(): path.read_text() for path in PATHS}
WIDTHS = ("in_feature_dim", "out_feature_dim", "dissim_proj_out")
SMALL = {  # settings with which the YAML of a command runs in no time
    "yamls/demo.yaml": ["epoch=1", "eval_snippets=1000", "eval_snippets_validation=500"],
    "yamls/hacs_canonical.yaml": [
        *(f"{key}={FEATURE_DIM}" for key in WIDTHS), "network_hidden_unit=8", "saving_epoch=150",
    ],
}  # fmt: skip
SCRIPT = r"(main_simsiam\.py|process_feature\.py|-m sola\.\w+) "
COMMAND = re.compile(rf"(?:python|torchrun --nproc_per_node=\d+) {SCRIPT}(.*?)(?: &&)?")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.S | re.M)


def blocks(text, language):
    return [content for name, content in BLOCK.findall(text) if name == language]


def spans(text):
    """What stands in backquotes within the prose, line breaks as spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]


def commands(text):
    """Script and arguments of all commands of this program."""
    lines = [line.strip() for block in blocks(text, "bash") for line in block.splitlines()]
    found = map(COMMAND.fullmatch, lines + spans(text))
    return [(match[1], shlex.split(match[2])) for match in found if match]


def made_small(arguments):
    """The arguments of a command with small settings where it has none, for a CPU."""
    arguments = [argument for argument in arguments if not argument.startswith("--device=")]
    of_yaml = (SMALL.get(argument.removeprefix("--yaml_path="), []) for argument in arguments)
    given = {argument.partition("=")[0] for argument in arguments}
    small = [setting for settings in of_yaml for setting in settings]
    return arguments + [text for text in small if text.partition("=")[0] not in given]


def anchors(text):
    """The anchors of a text's headings, as a web page has them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def package(workplace, name, json_name, subsets=("training", "validation"), *, stride, clip):
    """A data set as ActionFormer's users have it: a folder of npy and a JSON; times in seconds."""
    folder, database = workplace / name, {}
    (folder / "annotations").mkdir(parents=True)
    (folder / "i3d_features").mkdir()
    for split, subset in zip(("training", "validation"), subsets, strict=True):
        for path in (workplace / "HACS_DATA" / split).iterdir():
            features = np.tile(np.load(path), (4, 1))  # longer than THUMOS's window
            np.save(folder / "i3d_features" / path.name, features)
            duration = (len(features) - 0.5) * stride + clip
            actions = [{"label": "x", "segment": [0, duration / 2], "label_id": 0}]
            database[path.stem] = {"subset": subset, "duration": duration, "fps": 30.0}
            database[path.stem]["annotations"] = actions
    text = json.dumps({"database": database})
    (folder / f"annotations/{json_name}.json").write_text(text)


@pytest.fixture
def place(workplace, annotations, monkeypatch):
    """A folder with the files that README and docs name; its labels are yet to be made."""
    monkeypatch.setattr(synthetic, "VIDEOS", {"training": 30, "validation": 10})  # of the demo
    shutil.rmtree(workplace / "evaluation")
    (workplace / "yamls").symlink_to(REPOSITORY / "yamls")
    for name in ("HACS_segments_v1.1.1.json", "my.json"):
        (workplace / name).write_text(json.dumps({"database": annotations}))
    for name, target in {
        "my_features": "HACS_DATA",
        "new_videos": "HACS_DATA/validation",
        "one.npy": "HACS_DATA/validation/v5.npy",
    }.items():
        (workplace / name).symlink_to(workplace / target)
    two_folders(workplace)
    package(workplace, "thumos", "thumos14", ("Validation", "Test"), stride=4 / 30, clip=16 / 30)
    package(workplace, "anet_1.3", "anet1.3_i3d_filtered", stride=16 / 25, clip=16 / 25)
    torch.save(SoLaModule(FEATURE_DIM, 8).state_dict(), workplace / "sola.pt")
    for run in ("first", "second"):
        (workplace / "models" / run).mkdir(parents=True)
        record = {"record": "epoch", "epoch": 1, "loss": 0.5, "tanh_alpha": 0.1, "seconds": 1.0}
        (workplace / "models" / run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return workplace


def test_every_command_runs(place, run_here):
    for name, text in TEXTS.items():
        found = commands(text)
        written = re.findall(rf"{SCRIPT}[^`\s]*[=/]", " ".join(text.split()))
        assert len(found) == len(written), f"{name}: a command in another form than the others"
        for script, arguments in found:
            result = run_here(script, *made_small(arguments))
            assert result.returncode == 0, f"{name}: {script} {arguments}: {result.stderr}"
    features = place / "transformed_features"
    assert len(list(features.glob("hacs_canonical_150/*/*.npy"))) == 21
    assert len(list(features.glob("demo_1/validation/*.npy"))) == 10
    for name in ("0", "moving_average5", "150"):
        folder = features / f"hacs_canonical_{name}_actionformer"
        assert settings(folder, "actionformer")["dataset"]["feat_folder"] == str(folder)
    made = ["new_features/v5.npy", "one_sola.npy", "both.png", "models/mine/mine_50.pt"]
    assert [name for name in made if not (place / name).is_file()] == []
    assert load_config("joined.yaml").in_feature_dim == FEATURE_DIM


def test_the_python_runs(tmp_path, monkeypatch):
    path = tmp_path / "models/demo/demo_100.pt"
    path.parent.mkdir(parents=True)
    module = SoLaModule(128, 64)
    torch.nn.init.constant_(module.alpha, 0.1)
    torch.save(module.state_dict(), path)
    monkeypatch.chdir(tmp_path)
    of = {}
    for name, text in TEXTS.items():
        of[name] = {}
        for block in blocks(text, "python"):
            exec(compile(block, name, "exec"), of[name])
    names = of["README.md"]
    np.testing.assert_allclose(names["some"], names["refined"][:, [4, 6, 8]], atol=1e-4)
    names = of["docs/heads.md"]
    with torch.no_grad():
        alone = module(names["features"][1:2, :, :180].transpose(1, 2))[0]
    np.testing.assert_allclose(names["to_head"][1, :, :180].T.detach(), alone, atol=1e-4)
    assert not names["to_head"][1, :, 180:].any()
    assert names["layer"].module.alpha.grad is not None
    with torch.no_grad():
        old = names["without_sola"](names["features"])
        expected = module(names["features"].transpose(1, 2)).transpose(1, 2)
    np.testing.assert_allclose(old, expected, atol=1e-5)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", TEXTS[name])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / name).parent / path if path else REPOSITORY / name
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_exist(name):
    rooms = [path.name for path in (REPOSITORY / "sola").iterdir() if path.is_dir()]
    for span in spans(TEXTS[name]):
        if re.fullmatch(r"test_\w+\.py", span):
            assert (REPOSITORY / "tests" / span).is_file(), span
        top = span.partition("/")[0]
        if re.fullmatch(r"[\w.]+/[\w./]*", span) and (top in rooms or (REPOSITORY / top).is_dir()):
            if (
                top in ("models", "demo", "visualizing", "evaluation", "HACS_DATA")
                or "_features" in top
            ):
                continue  # what a user has there
            folder = REPOSITORY / "sola" if top in rooms else REPOSITORY
            assert (folder / span).exists(), span


def test_tests_that_are_named_exist():
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").glob("test_*.py"))
    for text in TEXTS.values():
        for name in re.findall(r"`(test_\w+)`", text):
            assert f"def {name}(" in tests


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_bytes()) <= 11_000


def test_the_table_of_settings_is_that_of_the_program(tmp_path):
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| ", TEXTS["docs/settings.md"], re.M)
    defaults = dict(rows)
    assert len(rows) == len(defaults)
    assert defaults.keys() == {*Config.__dataclass_fields__, "eval_eval_iter"}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(defaults | {"exp_name": "all"}))
    assert load_config(tmp_path / "all.yaml") == Config(exp_name="all")


def test_every_head_and_every_field_of_a_record_is_told_of(config):
    for head in HEADS:
        assert f"`{head}`" in TEXTS["README.md"]
        assert f"`{head}`" in TEXTS["docs/heads.md"]
    for record in train(replace(config, epoch=1)):
        for name in record:
            assert f"`{name}`" in TEXTS["docs/reading_a_run.md"], name
