"""Imports point one way, as the README's map of the code says."""

import ast

from conftest import REPOSITORY

LEVELS = [
    {"prepare"},
    {"data_files"},
    {"training", "export", "data_report"},
    {"pictures", "evaluation", "sources"},
    {"run_data", "manifest", "encoder", "heads"},
    {"probe", "plots", "tsm_sheet", "windows", "synthetic", "report", "formats"},
    {"encode", "learner"},
    {"model", "run_state", "dataset", "annotations"},
    {"checkpoint", "tsm", "arrays"},
    {"config", "metrics", "figures"},
    {"files"},
    {"runtime"},
    {"ranks", "pipeline", "pickles"},
]


def test_every_module_imports_from_lower_levels_only():
    level_of = {name: level for level, names in enumerate(LEVELS) for name in names}
    modules = {path.stem: path for path in (REPOSITORY / "sola").glob("[a-z]*.py")}
    assert modules.keys() == level_of.keys()
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sola."):
                imported = node.module.removeprefix("sola.")
                assert level_of[imported] > level_of[name], f"{name} imports {imported}"


def test_public_names_exist():
    import sola

    assert all(getattr(sola, name).__name__ == name for name in sola.__all__)
