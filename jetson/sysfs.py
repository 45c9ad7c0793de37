"""Small files of the kernel, read without errors: a sensor may be powered down, a node may be absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def text(path: Path) -> str | None:
    """Read a small file, its NULs and surrounding space removed; None where it is absent, unreadable or offline."""
    try:
        return path.read_bytes().decode("utf-8", "replace").replace("\0", " ").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """Read a file that holds one decimal number; None where it does not."""
    content = text(path)
    try:
        return None if content is None else int(content)
    except ValueError:
        return None


def entries(directory: Path, pattern: str = "*") -> list[Path]:
    """List a directory's entries by name, numbers in counting order; empty where there is no such directory."""
    try:
        return sorted(directory.glob(pattern), key=lambda path: (len(path.name), path.name))
    except OSError:
        return []
