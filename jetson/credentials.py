"""The address files of a service: systemd reads them as root and hands the service copies that only it can read."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 65_536  # as overflight run reads
_KEYS = ("source-file", "link-file")
_LINE = re.compile(rf"^(\s*)({'|'.join(_KEYS)})(\s*=\s*)(.+)$", re.MULTILINE)


class Credentials(NamedTuple):
    """A configuration whose address files are named next to it, and where each of them really is."""

    config: str
    paths: dict[str, Path]


def separate(config: str) -> Credentials:
    """Give each address file of a configuration a name next to the configuration, where systemd puts its copy.

    Raises ValueError for a value that is not on one line in double quotes, or a path that is not absolute.
    """
    paths: dict[str, Path] = {}

    def rename(line: re.Match[str]) -> str:
        indent, key, equals, text = line.groups()
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError:
            value, end = None, 0
        files = value if isinstance(value, list) else [value]
        if not all(isinstance(file, str) for file in files):
            raise ValueError(f"{key}: expected its value on one line, in double quotes")
        names = [key if len(files) == 1 else f"{key}-{number}" for number in range(1, len(files) + 1)]
        for name, file in zip(names, files, strict=True):
            paths[name] = _path(key, file)
        renamed = json.dumps(names[0] if isinstance(value, str) else names)
        return f"{indent}{key}{equals}{renamed}{text[end:]}"

    return Credentials(_LINE.sub(rename, config), paths)


def drop_in(paths: dict[str, Path]) -> str:
    """Write the part of a unit that loads the files. It holds their paths only: everyone can read it."""
    lines = [f"LoadCredential={name}:{str(path).replace('%', '%%')}" for name, path in paths.items()]
    return "\n".join(["# Written by: overflight service install.", "[Service]", *lines, ""])


def copy_credential(path: Path, to: Path) -> None:
    """Copy an address file so that only its owner can read it. Raises ValueError for one that a service cannot have."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path}: not a file; expected a file with an address in it")
        if mode & 0o007:
            raise ValueError(f"{path}: mode {stat.S_IMODE(mode):04o}, so every user can read it; run: chmod 600 {path}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; expected a file with an address in it") from error
    with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as copy:
        copy.write(content)


def _path(key: str, file: str) -> Path:
    """Return a path that systemd can read in a setting: it knows no quotes there."""
    path = Path(file)
    if not path.is_absolute() or any(sign in file for sign in ":\n"):
        raise ValueError(f"{key} {file}: expected an absolute path without a colon")
    return path
