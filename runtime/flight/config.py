"""The configuration file of a flight: every option of ``overflight run`` as a key of a TOML file.

The keys are the names of the options, so the file can say whatever the command line can, and its values are checked by
the options themselves. A file is edited line by line, which keeps its comments.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import UsageError
from overflight.runtime.toml_input import TomlError, decode_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = """\
# The configuration of a flight. Start it with: overflight run --config FILE
# Every key is an option of `overflight run`; an option on the command line replaces it.
# A line that starts with # has no effect. Relative paths start at this file's folder.
"""
MAX_BYTES = 65_536
LEFT_OUT = {"config", "print_config", "check", "as_json", "help"}  # these say what to do, not how to fly
_TOML_TYPES: dict[str, Any] = {
    "true or false": bool,
    "a whole number": int,
    "a number": (int, float),
    "a list of strings": list,
    "a string": str,
}


def read_config(path: Path, command: click.Command, context: click.Context) -> dict[str, Any]:
    """Read and check a configuration file; return the values by parameter name, paths made absolute.

    Raises UsageError with the file, the key, and what is expected.
    """
    values = _parse(path, read_text(path))
    keys = config_keys(command)
    found = {}
    for key, value in values.items():
        if key not in keys:
            raise UsageError(f"{path}: unknown key {key!r}; {_suggest(key, keys)}")
        found[str(keys[key].name)] = _checked(path, key, keys[key], value, context)
    return found


def read_text(path: Path) -> str:
    """Read a configuration file. Raises UsageError."""
    try:
        return read_regular(path, MAX_BYTES, UsageError).decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected a flight's configuration, a TOML file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text; expected a flight's configuration, a TOML file") from error


def write_config(command: click.Command, values: Mapping[str, Any], text: str | None = None) -> str:
    """Write ``values`` (by parameter name) as a configuration file.

    With ``text``, an existing file, only the lines whose value differs are replaced, and new keys are added at the end:
    comments and order are kept. Without it, the options that have no value are listed as comments.
    """
    keys = config_keys(command)
    lines = [] if text is None else text.rstrip("\n").split("\n")
    before = {} if text is None else _parse(Path("the configuration"), text)
    for key, parameter in keys.items():
        value = _plain(values.get(str(parameter.name)))
        if text is None:
            lines += ["", *_comment(parameter), _line(key, value) if value is not None else f"# {_example(parameter)}"]
        elif value is not None and key not in before:
            lines += ["", *_comment(parameter), _line(key, value)]
        elif value is not None and value != before[key]:
            lines = _replace(lines, key, value)
    return (HEADER if text is None else "") + "\n".join(lines) + "\n"


def config_keys(command: click.Command) -> dict[str, click.Parameter]:
    """Return the parameters that a configuration file may set, by key."""
    return {_key(parameter): parameter for parameter in command.params if parameter.name not in LEFT_OUT}


def key_table(command: click.Command) -> str:
    """Describe the keys as a Markdown table, as docs/configuration.md shows it."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, parameter in config_keys(command).items():
        text = getattr(parameter, "help", None) or "The source: a file, a folder, a camera or an address."
        meaning, _, said = text.replace("|", "/").partition("  [default: ")
        default = parameter.default
        known = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        shown = said.rstrip("]") or (f"`{default}`" if known else "")
        lines.append(f"| `{key}` | {_expected(parameter)} | {shown} | {meaning} |")
    return "\n".join(lines)


def _key(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return str(parameter.name)
    return next(option for option in parameter.opts if option.startswith("--")).removeprefix("--")


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return decode_toml(text)
    except TomlError as error:
        raise UsageError(f"{path}: not TOML ({error}); correct that line") from error


def _suggest(key: str, keys: Mapping[str, click.Parameter]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), keys, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(keys)}"


def _checked(path: Path, key: str, parameter: click.Parameter, value: Any, context: click.Context) -> Any:
    """Check a value by its option's own type, and make a path absolute."""
    expected = _expected(parameter)
    kinds = _TOML_TYPES[expected]
    good = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
    if not good or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
        raise UsageError(f"{path}: {key} = {_plain_text(value)}; expected {expected}")
    try:
        converted = parameter.type_cast_value(context, value)
    except click.BadParameter as error:
        raise UsageError(f"{path}: {key}: {error.message}") from error
    return absolute(parameter, converted, path.absolute().parent)


def _expected(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return "true or false"
    if parameter.multiple:
        return "a list of strings"
    match parameter.type:
        case click.types.IntParamType():
            return "a whole number"
        case click.types.FloatParamType():
            return "a number"
        case _:
            return "a string"


def absolute(parameter: click.Parameter, value: Any, folder: Path) -> Any:
    """Return a value that names files with absolute paths; every other value as it is."""
    if isinstance(value, Path):
        return value if str(value).startswith("~") else folder / value
    if isinstance(value, tuple):
        return tuple(absolute(parameter, item, folder) for item in value)
    match parameter.name:
        case "source" if isinstance(value, str) and value and "://" not in value and not value.startswith("~"):
            return str(folder / value)
        case "pose" | "terrain" if isinstance(value, str) and (folder / value.partition("?")[0]).is_file():
            return str(folder / value)
        case _:
            return value


def _plain(value: Any) -> Any:
    """Return a value as TOML holds it: None where there is nothing to write."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value] or None
    return value


def _plain_text(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 60 else f"{text[:59]}…"


def _line(key: str, value: Any) -> str:
    # Strings, numbers, booleans and lists of strings are written alike in JSON and TOML, but for the control
    # character DEL, which TOML wants escaped.
    return f"{key} = {msgspec.json.encode(value).decode()}".replace("\x7f", "\\u007f")


def _comment(parameter: click.Parameter) -> list[str]:
    text = parameter.help if isinstance(parameter, click.Option) else "What to look at: see overflight run --help."
    return [f"# {text}"]


def _example(parameter: click.Parameter) -> str:
    match _expected(parameter):
        case "true or false":
            return _line(_key(parameter), False)
        case "a list of strings":
            return _line(_key(parameter), [])
        case _ if isinstance(parameter.default, int | float | str):
            return _line(_key(parameter), parameter.default)
        case _:
            return f"{_key(parameter)} ="


def _replace(lines: list[str], key: str, value: Any) -> list[str]:
    """Replace the line of ``key``, which must be written on one line; its comment behind it stays."""
    found = [at for at, line in enumerate(lines) if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line)]
    for at in found:
        comment = _trailing_comment(lines[at])
        changed = [*lines[:at], _line(key, value) + comment, *lines[at + 1 :]]
        try:
            if _parse(Path("the configuration"), "\n".join(changed)).get(key) == value:
                return changed
        except UsageError:
            continue
    raise UsageError(f"{key}: cannot be replaced in the configuration; write it there on one line")


def _trailing_comment(line: str) -> str:
    """Return the comment behind a value, with the space before it."""
    for found in re.finditer(r"\s+#", line):
        try:
            _parse(Path(), line[: found.start()])
        except UsageError:
            continue
        return line[found.start() :]
    return ""
