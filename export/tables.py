"""Tables of facts that lie next to the code as TOML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_table(path: Path) -> dict[str, Any]:
    """Read one of the package's own TOML files."""
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return table


def ignored_settings(kind: str) -> frozenset[str]:
    """Return the settings of one kind of file that do not change what a tower computes."""
    words: str = read_table(Path(__file__).with_name("ignored_settings.toml"))[kind]
    return frozenset(words.split())
