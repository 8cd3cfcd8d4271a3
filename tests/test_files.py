"""Files that appear whole or not at all, and one line for whatever a parser meets."""

import os
import resource

import pytest

from sola.errors import DataError, SolaError, parsing, shown
from sola.system.files import clear_temporary, only_user_of, write_atomically


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(SolaError, match=r"file: cannot write its 5000 bytes: File too large"):
            write_atomically(tmp_path / "file", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "file").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_temporary_files_have_names_of_their_own_and_follow_no_link(tmp_path, monkeypatch):
    seen = []
    real = os.replace

    def replace(temporary, path):
        seen.append(os.path.basename(temporary))
        real(temporary, path)

    monkeypatch.setattr(os, "replace", replace)
    for _ in range(2):
        write_atomically(tmp_path / "v.npy", b"content")
    assert len(set(seen)) == 2
    assert all(name.startswith(".v.npy.") and name.endswith(".tmp") for name in seen)
    (tmp_path / "precious").write_bytes(b"precious")
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))
    (tmp_path / ".v.npy.00000000.tmp").symlink_to("precious")
    with pytest.raises(SolaError, match="cannot write its 3 bytes: File exists"):
        write_atomically(tmp_path / "v.npy", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "v.npy").read_bytes() == b"content"


def test_leftovers_are_cleared_by_name(tmp_path):
    left = ".b.h5.12345678.tmp"
    for name in (".a.npy.1234abcd.tmp", left, ".mine.npy", ".mine.npy.tmp", "c.npy"):
        (tmp_path / name).touch()
    clear_temporary(tmp_path, "*.npy")
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {left, ".mine.npy", ".mine.npy.tmp", "c.npy"}


def test_who_locks_a_file_or_a_folder_clears_what_a_killed_one_left(tmp_path):
    (tmp_path / "x[1]").mkdir()
    others = [".x1.12345678.tmp", ".x[1].npy.12345678.tmp", "x[1]/.x.tmp"]
    for name in (*others, ".x[1].12345678.tmp", "x[1]/.annotations.json.12345678.tmp"):
        (tmp_path / name).touch()
    with only_user_of(tmp_path / "x[1]"):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.tmp")}
    assert left == set(others)


def test_a_parsers_error_is_one_line_that_keeps_its_cause():
    refused = pytest.raises(DataError, match=r"^a\.json: not JSON \(lacks 'x'\); mend it$")
    with refused as caught, parsing("a.json", "not JSON", "mend it"):
        {}["x"]
    assert isinstance(caught.value.__cause__, KeyError)
    for error in (MemoryError(), SolaError("as it is")):
        with pytest.raises(type(error)), parsing("a.json", "not JSON", "mend it"):
            raise error


def test_foreign_names_in_messages_are_printable_and_short():
    nested = []
    for _ in range(40):
        nested = [nested, nested]  # 10^12 brackets in print
    for value in ("a\nb\x00" + "c" * 100, 10**9999, nested):
        assert len(shown(value)) <= 60
        assert shown(value).isprintable()
    assert shown("ab c") == "ab c"
