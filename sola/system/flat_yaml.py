"""A flat YAML, KEY: VALUE a line, and KEY=VALUE: values are text until their key's type is known.

So 0123 is a name where a name is wanted and 123 where a number is, never an octal number.
"""

import contextlib
import itertools
import math
import os
import re
from pathlib import Path
from typing import Any

import yaml

from sola.errors import ConfigError, check_path, shown

MAX_BYTES = 100_000
PLAIN_TAG = "tag:yaml.org,2002:str"  # of all that has no tag of its own
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}


def read_flat_yaml(path: str | Path) -> list[tuple[str, str]]:
    """Key and text pairs of a file; nothing else is ever built from it. Raises ConfigError."""
    text = b""
    try:
        with open(check_path(os.fspath(path)), "rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        top = yaml.compose(text, Loader=yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--yaml_path={path}: {_reason(error, text)}") from error
    if top is None:
        raise ConfigError(f"{path}: holds no settings")
    pairs = top.value if isinstance(top, yaml.MappingNode) else [(top, top)]
    seen = set()
    for node in itertools.chain(*pairs):
        if not isinstance(node, yaml.ScalarNode) or node.tag != PLAIN_TAG or id(node) in seen:
            line = node.start_mark.line + 1
            raise ConfigError(f"{path}: line {line}: only KEY: VALUE, no lists, tags or anchors")
        seen.add(id(node))  # the node of an alias is that of its anchor
    return [(key.value, value.value) for key, value in pairs]


def _reason(error: Exception, text: bytes) -> str:
    if isinstance(error, OSError):
        return error.strerror
    if not isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return str(error) if isinstance(error, ValueError) else "nested too deeply"
    mark = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", "")
    lines = text.splitlines()
    for number in (mark.line, mark.line + 1) if mark else ():  # an error is seen a line later
        line = lines[number - 1] if 0 < number <= len(lines) else b""
        if line.strip() and not line.lstrip().startswith((b"#", b"-")) and b":" not in line:
            return f"not valid YAML: line {number} has no colon, {shown(line.decode('latin-1'))!r}"
    return f"not valid YAML{f' in line {mark.line + 1}' if mark else ''}: {shown(problem)}"


def split_setting(setting: str) -> tuple[str, str]:
    """Key and text of KEY=VALUE; quotes around the value are taken off, as YAML does."""
    key, equals, text = setting.partition("=")
    text = text.strip()
    if not equals or not text:
        raise ConfigError(f"{shown(setting)!r} is not KEY=VALUE")
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return key.strip(), text[1:-1] if is_quoted else text


def cast(key: str, wanted: type, text: str) -> Any:
    """The text as a bool, int, float or str. Raises ConfigError, naming the key."""
    if wanted is bool and text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    if wanted is int and re.fullmatch(r"[-+]?[0-9]{1,20}", text):
        return int(text)
    if wanted is float:
        with contextlib.suppress(ValueError):
            number = float(text)
            if math.isfinite(number):
                return number
    if wanted is str and text not in ("", "~", "null"):
        return text
    raise ConfigError(f"{key} is {shown(text) or 'empty'}; must be {KINDS[wanted]}")
