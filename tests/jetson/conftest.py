"""Recreated file systems of Jetsons, grown from one text file each."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

TREES = Path(__file__).parent / "trees"


@cache
def files(name: str) -> dict[str, str]:
    """Read a tree: ``@ PATH`` begins a file, ``\\0`` is a NUL, the lines before the first file are remarks."""
    parts = (TREES / f"{name}.txt").read_text(encoding="utf-8").split("\n@ ")[1:]
    return {path: text.replace("\\0", "\0") for path, _, text in (part.partition("\n") for part in parts)}


def grow(name: str, root: Path) -> Path:
    """Write every file of a tree under ``root``."""
    for path, text in files(name).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """Grow a tree by name in a folder of its own."""
    return lambda name: grow(name, tmp_path / name)
