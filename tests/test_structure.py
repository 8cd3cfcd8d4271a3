"""Where everything lives: a package imports from those above it in this table only."""

import ast

import pytest
from helpers import REPOSITORY

ROOMS = ["errors", "system", "config", "records", "data", "method", "probe", "plots"]
HOUSES = ["training", "export", "prepare"]  # which import from all of these, not from one another
ALLOWED = {room: {*ROOMS[: number + 1]} for number, room in enumerate(ROOMS)}
ALLOWED |= {house: {*ROOMS, house} for house in HOUSES}
FILES = sorted((REPOSITORY / "sola").rglob("*.py"))


def room_of(parts):
    return parts[0].removesuffix(".py")


def test_every_room_is_in_the_table():
    rooms = {room_of(path.relative_to(REPOSITORY / "sola").parts) for path in FILES}
    assert rooms == {*ALLOWED, "__init__"}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(REPOSITORY)) for path in FILES])
def test_imports_point_one_way(path):
    room = room_of(path.relative_to(REPOSITORY / "sola").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sola"):
            imported = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            assert {*imported} <= ALLOWED[room], f"{path.name} imports {imported}"


def test_public_names_exist():
    import sola

    assert all(getattr(sola, name).__name__ == name for name in sola.__all__)
