"""Imports point one way: a package imports from those above it in this table only."""

import ast

from conftest import REPOSITORY

ROOMS = [
    {"system", "config", "records"},
    {"data"},
    {"method"},
    {"probe"},
    {"plots"},
    {"training", "export", "prepare"},
]


def test_public_names_exist():
    import sola

    assert all(getattr(sola, name).__name__ == name for name in sola.__all__)


def test_every_room_is_in_the_table():
    rooms = {path.stem for path in (REPOSITORY / "sola").glob("[a-z]*")}
    assert rooms == set().union(*ROOMS)
    assert all(ast.parse(path.read_text()) for path in (REPOSITORY / "sola").rglob("*.py"))
