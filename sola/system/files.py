"""Files that appear whole or not at all, and folders that one process has to itself."""

import contextlib
import errno
import fcntl
import glob
import io
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sola.errors import SolaError

NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}  # some network disks


def write_atomically(
    path: str | Path, *parts: bytes | memoryview, is_synced: bool = True, syncs_folder: bool = True
) -> None:
    """Write a file, with its folder, so that it is seen whole or not at all.

    is_synced: also after a power failure, once its folder is synced, too. The temporary file lies
    in the same folder under a hidden name of its own ending in .tmp. Raises SolaError, naming the
    file and its size, when it cannot be written; an earlier file then stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # x: never through a link that lies there
            for part in parts:
                file.write(part)
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if is_synced and syncs_folder:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        size = sum(map(len, parts))
        raise SolaError(f"{path}: cannot write its {size} bytes: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make a rename in it survive a power failure, on disks that can."""
    file = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(file)
    finally:
        os.close(file)


def write_npy(path: str | Path, array: np.ndarray, **syncs: bool) -> None:
    """np.save, atomically, of an array in C order; syncs: as of write_atomically."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    values = array.reshape(-1).view(np.uint8).data
    write_atomically(path, header.getbuffer(), values, **syncs)


def clear_temporary(folder: Path, name: str = "*") -> None:
    """Remove what a killed run left half-written, of files whose names match."""
    for temporary in folder.glob(f".{name}.{'[0-9a-f]' * 8}.tmp"):
        temporary.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Rename what is there, if anything, to a dated name."""
    if not os.path.lexists(path):
        return
    aside = path.with_name(f"{path.name}_until_{time.strftime('%Y%m%d-%H%M%S')}")
    while os.path.lexists(aside):  # two in one second
        aside = aside.with_name(aside.name + "+")
    path.rename(aside)
    print(f"{path}: set aside as {aside}")


def read_bytes(path: str | Path) -> bytes:
    """What a regular file holds. Raises SolaError for anything else, a pipe for instance."""
    refuse_pipe(path)
    return Path(path).read_bytes()


def refuse_pipe(path: str | Path) -> None:
    """Raise SolaError for what is there and is no regular file: reading it might never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise SolaError(f"{path}: not a file")


@contextlib.contextmanager
def only_user_of(folder: str | Path) -> Iterator[None]:
    """Within it, no other process is within it for the same folder or file, by whatever name.

    The folder need not exist: the lock is a record lock on .<name>.lock beside it, which the system
    takes back when this process ends, in whatever way. Children do not inherit it. Raises SolaError
    when another process holds it, naming that process. What a killed one left half-written, of the
    file or in the folder, is removed.
    """
    place = Path(os.path.realpath(folder))
    if not place.name:
        raise SolaError(f"{folder}: is the root of all files; name a folder in it")
    path = place.with_name(f".{place.name}.lock")
    file = _open_locked(path, folder)
    try:
        clear_temporary(place)
        clear_temporary(place.parent, glob.escape(place.name))
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                path.unlink()  # before it is given back
            os.close(file)


def _open_locked(path: Path, folder: str | Path) -> int | None:
    """The lock file, open and locked; None, saying so, where the disk has no locks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise SolaError(f"{folder}: cannot write there: {error.strerror}") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(file, 200).decode(errors="replace")
        os.close(file)
        if error.errno in NO_LOCKS_HERE:
            print(f"note: no locks on this disk; let no other process use {folder}")
            return None
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise SolaError(f"{path}: cannot be locked: {error.strerror}") from error
        who = holder or "another process"
        raise SolaError(f"{folder}: in use by {who}; wait until that ends") from error
    if not _is_at(path, file):  # its last holder has just removed it
        os.close(file)
        return _open_locked(path, folder)
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
    return file


def _is_at(path: Path, file: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False
