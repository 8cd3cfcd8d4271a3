"""Both scripts as users run them: through the command line, in a folder of their own.

Some run in a process of their own; most in this one, which has all modules loaded.
"""

import json
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, replace, run_script

import main_simsiam
import process_feature
from sola.config import Config, load_config
from sola.method.module import SoLaModule
from sola.plots.figure import new_figure
from sola.prepare import __main__ as prepare
from sola.system import cli as runtime
from sola.training import draw_run as pictures

README = (REPOSITORY / "README.md").read_text()
SMALL_DEMO = ["epoch=1", "eval_snippets=1000", "eval_snippets_validation=500"]


@pytest.fixture
def run_here(capfd, monkeypatch):
    """Run a command in this process, pictures blank; what it left, as run_script gives it."""
    for name in ("tsm_sheet", "window_sheet", "curves"):  # quicker
        monkeypatch.setattr(pictures, name, lambda *_: new_figure(9, 9))
    monkeypatch.setattr(runtime, "_handle_signals", lambda _: {})
    mains = {"main_simsiam.py": main_simsiam.main, "process_feature.py": process_feature.main}

    def run(script, *arguments):
        with pytest.raises(SystemExit) as left:
            runtime.run_script(lambda: mains[script](list(arguments)))
        output, errors = capfd.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=output, stderr=errors)

    return run


def assert_refused(result, *words):
    """One line on standard error, exit status 2."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr


def test_train_continue_and_process(workplace, run_here):
    result = run_script("main_simsiam.py", "--yaml_path=tiny.yaml", "epoch=2", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no progress bars where there is no terminal
    assert "epoch 1/2  loss 0." in result.stdout
    command = re.search(r"next: python (process_feature\.py .*)", result.stdout)[1]
    result = run_here(*shlex.split(command))
    assert result.returncode == 0, result.stderr
    assert np.load(workplace / "transformed_features/tiny_2/validation/v0.npy").shape == (1, 16)
    assert len(list((workplace / "transformed_features/tiny_2").glob("*/*.npy"))) == 21
    result = run_here("main_simsiam.py", "epoch=4", "--yaml_path=tiny.yaml")
    assert result.returncode == 0, result.stderr
    assert "2 of 4 epochs are done" in result.stdout
    assert "eval_result in epoch4" in result.stdout
    assert "eval_result in epoch2" not in result.stdout


@pytest.mark.parametrize("script", ["main_simsiam.py", "process_feature.py"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["required"]),
        (["--yaml_path=absent.yaml", "--load_model=1"], ["absent.yaml"]),
        (["--yaml=tiny.yaml"], ["--help"]),
        (["--yaml_path=", "--load_model=1"], ["--yaml_path: is empty"]),
        (["--yaml_path=tiny.yaml", "--load_model=1", "--two\nlines"], ["two lines"]),
        (["--yaml_path=tiny.yaml", "--load_model=1", "epohc=3"], ["did you mean epoch"]),
        (["--yaml_path=tiny.yaml", "--load_model=1", "--device=gpu"], ["device"]),
    ],
)
def test_bad_arguments_are_met_before_torch_is_imported(workplace, script, arguments, words):
    if script == "main_simsiam.py":
        arguments = [a for a in arguments if not a.startswith("--load_model")]
    (workplace / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = f"{workplace}:{REPOSITORY}"
    assert_refused(run_script(script, *arguments, cwd=workplace, path=path), *words)
    assert run_script(script, "--help", cwd=workplace, path=path).returncode == 0


@pytest.mark.parametrize(
    ("mischief", "words"),
    [
        ("no features", ["HACS_DATA/training"]),
        ("truncated", ["t5.npy", "truncated"]),
        ("width", ["t5.npy", "in_feature_dim"]),
        ("no such gpu", ["device cuda:99"]),
        ("read-only", ["models"]),
        ("no memory", ["out of memory"]),
    ],
)
def test_bad_input_is_one_line(workplace, run_here, mischief, words):
    overrides = []
    path = workplace / "HACS_DATA/training/t5.npy"
    if mischief == "no features":
        (workplace / "HACS_DATA/training").rename(workplace / "elsewhere")
    elif mischief == "truncated":
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-8])
    elif mischief == "width":
        path.unlink()
        np.save(path, np.zeros((30, 17)))
    elif mischief == "no such gpu":
        overrides = ["device=cuda:99"]
    elif mischief == "no memory":
        overrides = ["network_hidden_unit=99999999"]
    elif mischief == "read-only":  # a file where the folder should be also refuses root
        (workplace / "models").write_text("")
    result = run_here("main_simsiam.py", "--yaml_path=tiny.yaml", *overrides)
    assert_refused(result, *words)


def test_the_commands_of_the_readme(tmp_path, run_here, monkeypatch):
    """Every python command that README shows on the demo runs, with fewer epochs."""
    (tmp_path / "yamls").symlink_to(REPOSITORY / "yamls")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(
        r"^python ((?:main_simsiam|process_feature)\.py .*demo\S*.*?)(?: &&)?$", README, re.M
    )
    assert len(commands) >= 2
    for command in commands:
        result = run_here(*shlex.split(command), *SMALL_DEMO)
        assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "transformed_features").glob("demo_*/validation/*.npy"))) == 80


def test_the_commands_for_hacs(workplace, run_here):
    """The original's steps 4 and 5 as README has them, on data of another width."""
    (workplace / "yamls").symlink_to(REPOSITORY / "yamls")
    commands = re.findall(r"^ +python (.*hacs_canonical.*)$", README, re.M)
    assert len(commands) == 2
    width = [f"{key}=16" for key in ("in_feature_dim", "out_feature_dim", "dissim_proj_out")]
    for command in commands:
        arguments = [*shlex.split(command), *width, "network_hidden_unit=8", "saving_epoch=150"]
        result = run_here(*arguments)
        assert result.returncode == 0, result.stderr
    assert len(list((workplace / "transformed_features/hacs_canonical_150").glob("*/*.npy"))) == 21


def test_the_commands_for_heads_and_own_features(workplace, config, run_here):
    """README's other commands, on files of the names that they show."""
    (workplace / "yamls").symlink_to(REPOSITORY / "yamls")
    config = replace(config, exp_name="hacs_canonical", epoch=150, saving_epoch=150)
    config.run_folder.mkdir(parents=True)
    for path in (config.model_file(150), workplace / "sola.pt"):
        torch.save(SoLaModule(16, 16).state_dict(), path)
    (workplace / "new_videos").symlink_to(workplace / "HACS_DATA/validation")
    (workplace / "my_features").symlink_to(workplace / "HACS_DATA")
    (workplace / "one.npy").symlink_to(workplace / "HACS_DATA/validation/v5.npy")
    duration = len(np.load(workplace / "HACS_DATA/training/t5.npy")) / 2
    entry = {"subset": "training", "duration": str(duration), "annotations": []}
    for name in ("HACS_segments_v1.1.1.json", "my.json"):
        (workplace / name).write_text(json.dumps({"database": {"t5": entry}}))
    commands = re.findall(r"^python (process_feature\.py .*(?:--for|--input).*)$", README, re.M)
    assert len(commands) == 3
    for command in commands:
        width = ["in_feature_dim=16", "out_feature_dim=16", "dissim_proj_out=16"]
        result = run_here(*shlex.split(command), *(width if "--for" in command else []))
        assert result.returncode == 0, result.stderr
    assert (workplace / "new_features/v5.npy").is_file()
    assert (workplace / "one_sola.npy").is_file()
    command = re.search(r"^python -m sola\.prepare (.*)$", README, re.M)[1]
    prepare.main(shlex.split(command))
    assert load_config("mine.yaml").in_feature_dim == 16


def test_the_python_of_the_readme(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    path = tmp_path / "models/hacs_canonical/hacs_canonical_150.pt"
    path.parent.mkdir(parents=True)
    module = SoLaModule(2048, 512)
    torch.nn.init.constant_(module.alpha, 0.1)
    torch.save(module.state_dict(), path)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile("\n".join(blocks), "README.md", "exec"), names)
    alone = names["module"](names["features"][1:2, :180])[0].detach()
    np.testing.assert_allclose(names["to_head"][1, :, :180].T.detach(), alone, atol=1e-4)
    assert not names["to_head"][1, :, 180:].any()
    assert names["layer"].module.alpha.grad is not None
    np.testing.assert_allclose(names["some"], names["refined"][:, [4, 6, 8]], atol=1e-4)


def test_the_readme_names_every_key():
    settings = README.partition("\n## Settings\n")[2].partition("\n## ")[0]
    table = set(re.findall(r"^\| `(\w+)` \|", settings, re.M))
    assert table == {*Config.__dataclass_fields__, "eval_eval_iter"}
