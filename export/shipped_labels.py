"""The label files that come with the package, and banks compiled from them at need for any model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.export.label_file import SUFFIXES, read_label_file
from overflight.export.labels import compile_file
from overflight.export.prompts import DEFAULT, read_templates
from overflight.runtime.bank import LabelBank
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.paths import home

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle

_FOLDER = Path(__file__).parent / "label_files"
_NOT_LABELS = frozenset({"coarse"})


def shipped_names() -> tuple[str, ...]:
    """Return the names of the shipped label files."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml") if path.stem not in _NOT_LABELS))


def shipped_path(name: str) -> Path:
    """Return a shipped label file. Raises UsageError for another name."""
    if name not in shipped_names():
        raise UsageError(f"{name}: no such file, and no shipped labels of this name; there are {named()}")
    return _FOLDER / f"{name}.toml"


def named() -> str:
    """Return the shipped names for a message."""
    return ", ".join(shipped_names())


def purpose(name: str) -> str:
    """Return what a shipped file is for: its first line."""
    return shipped_path(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def find_labels(given: Path) -> Path:
    """Return a label file by its path, or a shipped one by its name."""
    if given.exists() or given.suffix.lower() in SUFFIXES or given.parent != Path():
        return given
    return shipped_path(given.name)


def bank_of(given: str | Path, bundle: Bundle) -> LabelBank:
    """Return a bank: a ``.safetensors`` file, or a label file or shipped name compiled for a bundle's towers.

    A compiled bank is kept under ``$OVERFLIGHT_HOME/banks``, so that a large text tower runs once. Raises UsageError
    for what is neither, BankError for a damaged bank.
    """
    path = Path(given)
    if path.suffix.lower() == ".safetensors":
        bank = LabelBank.load(path)
        bank.check_fits(bundle.manifest, source=str(path))
        return bank
    source = find_labels(path)
    templates = read_templates(bundle.manifest.templates or DEFAULT)
    file = read_label_file(source, templates)
    key = hashlib.sha256(b"\0".join((bundle.sha256.encode(), source.read_bytes(), *map(str.encode, templates.forms))))
    kept = home() / "banks" / f"{source.stem}-{key.hexdigest()[:16]}.safetensors"
    try:
        return LabelBank.load(kept)
    except OverflightError:
        bank = compile_file(file, bundle).bank
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        bank.save(kept)
    except OSError:
        return bank  # a disk that cannot be written costs time, not the answer
    return bank
