"""What the scripts have in common: arguments, errors as one line, progress bars."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sola.errors import SolaError, expanded, is_out_of_memory
from sola.system.ranks import is_first_rank, leave_ranks, rank, rank_count
from sola.system.signals import Interrupted, leave, leave_on_signals

if TYPE_CHECKING:
    from tqdm import tqdm

EXIT_USER_ERROR = 2
TIME_OPTIONS = {  # key of a YAML, see data/times.py -> type and help of its option
    "fps": (str, "snippets a second, or per_video: each one's own, by its duration"),
    "clip": (float, "seconds that a snippet looks at; else one stride"),
    "feat_stride": (int, "frames from a snippet to the next"),
    "num_frames": (int, "frames that a snippet looks at; else one stride"),
    "video_fps": (float, "frames a second; else the annotations' fps"),
}


class ScriptParser(argparse.ArgumentParser):
    """argparse with this program's error line."""

    def error(self, message: str) -> NoReturn:
        hint = "; settings of the YAML are KEY=VALUE" if "unrecognized" in message else ""
        line = " ".join(message.splitlines())
        self.exit(EXIT_USER_ERROR, f"error: {line}{hint} (see --help)\n")


class ArgumentParser(ScriptParser):
    """The arguments that the scripts which read a YAML take."""

    def __init__(self, description: str, **yaml_options: Any) -> None:
        super().__init__(description=description, allow_abbrev=False)
        self.add_argument("--yaml_path", **yaml_options)
        self.add_argument("--device", help="auto, cpu, cuda or cuda:N; wins over the YAML's")
        self.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="win over the YAML")

    def parse(self, arguments: list[str] | None) -> argparse.Namespace:
        """Parse; options and KEY=VALUE in any order, --device among the latter in `settings`."""
        for given in sys.argv[1:] if arguments is None else arguments:
            self._check_name(given.partition("=")[0])
        options = self.parse_intermixed_args(arguments)
        for name, value in vars(options).items():
            if value == "" and name != "prefix":
                self.error(f"--{name}: is empty")
            if isinstance(value, str):
                setattr(options, name, ",".join(map(expanded, value.split(","))))
        device = [] if options.device is None else [f"device={options.device}"]
        options.settings = options.overrides + device
        return options

    def _check_name(self, given: str) -> None:
        """Refuse an option that is not known, before argparse misses another for it."""
        known = self._option_string_actions
        if given.startswith("--") and given != "--" and given not in known:
            near = [name for name in known if name.startswith(given)]
            near += difflib.get_close_matches(given, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; settings of the YAML are KEY=VALUE"
            self.error(f"unknown option {given}{hint}")


def add_timing_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where the snippets of a data set lie in time; see timing_settings."""
    for key, (kind, words) in TIME_OPTIONS.items():
        parser.add_argument(f"--{key}", type=kind, help=words)


def timing_settings(options: argparse.Namespace) -> list[str]:
    """KEY=VALUE settings of the timing options: of all of them where one says the rate."""
    given = {k: v for k, v in vars(options).items() if k in TIME_OPTIONS and v is not None}
    if "feat_stride" in given:
        if given["feat_stride"] < 1:
            raise SolaError("--feat_stride: must be frames, at least 1")
        if "fps" in given:
            raise SolaError("--feat_stride: says what --fps says; give one of them")
        given["fps"] = given.get("video_fps", 0) / given["feat_stride"]
    elif given.get("fps") == "per_video":
        given["fps"] = 0
    elif given.get("fps") in ("0", "0.0"):
        raise SolaError("--fps=0: must be snippets a second, or per_video")
    if "fps" in given:
        given = dict.fromkeys(TIME_OPTIONS, 0) | given
    return [f"{key}={value}" for key, value in given.items()]


def command(script: str, *arguments: str) -> str:
    """A command line that runs a script, or a module, in this working directory from any other."""
    here = Path.cwd()
    if script.startswith("-m "):
        place = script.split()
    else:
        path = Path(sys.argv[0]).resolve().with_name(script)
        place = [str(path.relative_to(here) if path.is_relative_to(here) else path)]
    return f"cd {shlex.quote(str(here))} && {shlex.join(['python', *place, *arguments])}"


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main function and leave with its exit status, errors as one line.

    With SOLA_TRACEBACK=1 an error's traceback, and that of its cause, comes before the line.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None when closed by the caller
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # names hold any byte
    if not is_first_rank():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the first one says is enough
    leave_on_signals()
    message = None
    try:
        main()
        leave_ranks()
    except Interrupted as stop:
        leave(stop.number, str(stop))
    except BrokenPipeError:  # the reader of a pipe has gone; there is nobody to tell
        sys.stderr.close()
        sys.exit(EXIT_USER_ERROR)
    except (SolaError, OSError, MemoryError, RuntimeError) as error:
        message = _line(error)
        if message is None:
            raise
        if os.environ.get("SOLA_TRACEBACK") == "1":
            traceback.print_exc()
    if message is not None:
        where = f" in rank {rank()}" if rank_count() > 1 else ""
        line = f"error{where}: {' '.join(message.splitlines())}\n"
        print(line, end="", file=sys.stderr)  # in one piece, though several ranks may write
        sys.exit(EXIT_USER_ERROR)
    if rank_count() > 1:  # threads of PyTorch's can abort a rank that tidies up
        os._exit(0)
    sys.exit(0)


def _line(error: Exception) -> str | None:
    """One line for an error that the user can mend; None for one of the program's own."""
    if isinstance(error, SolaError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    if is_out_of_memory(error):
        less = "storage: files, or a smaller batch_size, network or eval_snippets, needs less"
        return f"out of memory; {less}: {error}"
    if rank_count() > 1 and any(text in str(error) for text in ("gloo", "NCCL", "Connection")):
        return f"lost another process of this run, whose own error says more: {error}"
    return None


def say(line: str) -> None:
    """Print a line; where its reader has gone, as `tee` upon Ctrl-C, say no more and go on."""
    try:
        print(line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar on standard error; none when that is not a terminal."""
    from tqdm import tqdm

    options = {"delay": 0.5, "leave": False, "dynamic_ncols": True} | options
    is_shown = is_first_rank() and sys.stderr is not None  # which the caller may have closed
    options["disable"] = None if is_shown else True  # None: where there is no terminal
    return tqdm(items, **options)
