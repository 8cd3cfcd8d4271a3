"""Features whose axes are others than [T, C], and the commands that mend them."""

from pathlib import Path

import numpy as np
import pytest
from test_find import paste, save

from sola.data.features import open_features, open_joined
from sola.data.videos import BadFiles, open_files, video_paths
from sola.errors import BadFileError, DataError
from sola.prepare.find import check_axes, find_features


def opened(shapes, folder="f", parts=1):
    """Videos of the given shapes, in several files each of them."""
    for number, shape in enumerate(shapes):
        for part in range(parts):
            save(f"{folder}/{part}/v{number}.npy", np.arange(np.prod(shape)).reshape(shape))
    paths = video_paths([Path(folder, str(p)) for p in range(parts)])
    return open_files(paths, folder, None, BadFiles("error"))


@pytest.mark.parametrize("parts", [1, 2])
def test_channels_first_is_refused_with_the_command_that_transposes(place, parts):
    videos = opened([(16, 30), (16, 40), (16, 30)], parts=parts)  # two of three alike: a width
    assert check_axes(videos) == []
    videos = opened([(16, 30), (16, 40), (16, 30), (16, 50)], "my f", parts)
    words = r"my f/0: all files are \[16, T\], channels first, where \[T, C\] is wanted"
    with pytest.raises(DataError, match=words) as error:
        check_axes(videos)
    paste(error.value)
    mended = open_features("my f/0_transposed/v1.npy")
    assert not mended.fortran_order
    np.testing.assert_array_equal(mended.read(), np.load("my f/0/v1.npy").T)
    assert len(list(Path("my f/0_transposed").iterdir())) == 4


def test_all_folders_of_channels_first_are_transposed_together(place):
    shapes = {"train/x/a": (8, 9), "train/y/b": (8, 7), "val/c": (8, 6)}
    for name, shape in shapes.items():
        save(f"f/{name}.npy", np.ones(shape))
    found = find_features([Path("f")])
    both = {v: open_joined(paths) for part in found.values() for v, paths in part.items()}
    with pytest.raises(DataError, match=r"^f: all files are \[8, T\]") as error:
        check_axes(both)
    paste(error.value)
    for name, shape in shapes.items():
        assert np.load(f"f_transposed/{name}.npy").shape == shape[::-1]


@pytest.mark.parametrize("shapes", [[(16, 30), (16, 40)], [(30, 16), (40, 16), (50, 16)]])
def test_two_files_or_other_lengths_say_nothing(place, shapes):
    assert check_axes(opened(shapes)) == []


def test_files_of_one_size_are_noted_with_it(place):
    (note,) = check_axes(opened([(100, 400)] * 3))
    assert note.startswith("note: f/0: all 3 files are [100, 400], taken as [T, C]; transpose them")
    assert check_axes(opened([(100, 400)] * 2)) != []  # the third is still there
    assert len(check_axes(opened([(9, 4)] * 3, "g", parts=2))) == 2


@pytest.mark.parametrize("shape", [(1, 5, 4), (5, 1, 1, 4), (5, 4, 1), (1, 1, 5, 1, 4)])
def test_axes_of_one_are_squeezed_by_the_command(place, shape):
    values = np.arange(20).reshape(shape)
    save("f/a.npy", values)
    save("f/good.npy", values.reshape(5, 4))
    with pytest.raises(BadFileError, match=r"f/a\.npy: holds int64 .*, not features \[T, C\]") as e:
        open_features("f/a.npy")
    paste(e.value)
    for name in ("a", "good"):
        np.testing.assert_array_equal(np.load(f"f_squeezed/{name}.npy"), values.reshape(5, 4))


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 1, 4), (4,), (1, 4, 3, 2)])
def test_other_ranks_have_no_command(place, shape):
    save("f/a.npy", np.ones(shape))
    with pytest.raises(BadFileError, match=r"not features \[T, C\]; mend the file"):
        open_features("f/a.npy")
