"""Files that appear whole or not at all, and folders that one process has to itself."""

import contextlib
import errno
import fcntl
import io
import os
import platform
from pathlib import Path

import numpy as np

from sola.system.cli import SolaError

NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}  # some network disks


def write_atomically(path: str | Path, *parts: bytes | memoryview) -> None:
    """Write a file, with its folder, so that it is seen whole or not at all, also after a crash.

    The temporary file lies in the same folder under a hidden name ending in .tmp. Raises
    SolaError, naming the file and its size, when it cannot be written; an earlier file then stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        size = sum(map(len, parts))
        raise SolaError(f"{path}: cannot write its {size} bytes: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in it survive a power failure, on disks that can."""
    file = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(file)
    finally:
        os.close(file)


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """np.save, atomically, of an array in C order."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    write_atomically(path, header.getbuffer(), array.reshape(-1).view(np.uint8).data)


def clear_temporary(folder: Path, suffix: str = "") -> None:
    """Remove what a killed run left half-written, of files with a suffix."""
    for temporary in folder.glob(f".*{suffix}.tmp"):
        if temporary.is_file():
            temporary.unlink(missing_ok=True)


def read_bytes(path: str | Path) -> bytes:
    """What a regular file holds. Raises SolaError for anything else, a pipe for instance."""
    refuse_pipe(path)
    return Path(path).read_bytes()


def refuse_pipe(path: str | Path) -> None:
    """Raise SolaError for what is there and is no regular file: reading it might never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise SolaError(f"{path}: not a file")


class FolderLock:
    """While it is held, no other process can hold the one of the same folder.

    The folder need not exist: the lock is a record lock on .<name>.lock beside it, which the system
    takes back when this process ends, in whatever way. Children do not inherit it.
    """

    def __init__(self, folder: Path) -> None:
        place = folder.absolute()
        if not place.name:
            raise SolaError(f"{folder}: is the root of all files; name a folder in it")
        self.folder = folder
        self.path = place.with_name(f".{place.name}.lock")
        self.file: int | None = None
        self.made: list[Path] = []  # folders above it that were not there

    def acquire(self) -> None:
        """Take the lock. Raises SolaError when another process holds it, naming that process."""
        while True:
            file = self._open()
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(file, 200).decode(errors="replace")
                os.close(file)
                if error.errno in NO_LOCKS_HERE:
                    print(f"note: no locks on this disk; let no other process use {self.folder}")
                    return
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise SolaError(f"{self.path}: cannot be locked: {error.strerror}") from error
                raise SolaError(
                    f"{self.folder}: in use by {holder or 'another process'}; wait until that ends"
                ) from error
            if self._is_current(file):
                break
            os.close(file)  # its holder has just removed it
        self.file = file
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {platform.node()}".encode())

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self.file)
            self.file = None
        for folder in self.made:  # where nothing has come of it
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _open(self) -> int:
        try:
            above = self.path.parents
            self.made = self.made or [folder for folder in above if not folder.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise SolaError(f"{self.folder}: cannot write there: {error.strerror}") from error

    def _is_current(self, file: int) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        return False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
