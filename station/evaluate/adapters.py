"""The twelve sets of RemoteCLIP's zero-shot table by name: is a folder really that set?"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from overflight.export.tables import read_table
from overflight.runtime.errors import UsageError
from overflight.station.evaluate.datasets import Dataset, class_name, open_dataset

_HERE = Path(__file__).parent


class PublishedRow(msgspec.Struct, frozen=True):
    """A figure that others published, in per cent."""

    model: str
    value: float
    source: str


class Adapter(msgspec.Struct, frozen=True):
    """A published set: its title, number of pictures, classes, and where a user gets it."""

    title: str
    pictures: int
    where: str
    classes: tuple[str, ...]
    published: tuple[dict[str, Any], ...] = ()


def adapters() -> dict[str, Adapter]:
    """Return the known sets by name."""
    found = read_table(_HERE / "adapters.toml")
    return {name: msgspec.convert(one, Adapter) for name, one in found.items()}


def open_as(name: str, path: Path) -> Dataset:
    """Open a folder as a known set, with its class names. Raises UsageError where classes or size are not the set's.

    Folders are matched by their letters alone: ``aGrass``, ``bare_land`` and ``BareLand`` are known.
    """
    known = adapters()
    if name not in known:
        raise UsageError(f"--as {name}: unknown set; expected one of {', '.join(known)}")
    adapter = known[name]
    wanted = {_letters(one): one for one in adapter.classes}
    opened = open_dataset(path)
    names = _known(opened, wanted)
    if not any(names.values()):  # RSI-CB comes with a folder for each topic around its classes
        with suppress(UsageError):
            grouped = open_dataset(path, grouped=True)
            opened, names = grouped, _known(grouped, wanted)
    unknown = sorted(folder for folder, found in names.items() if not found)
    missing = sorted(set(adapter.classes) - set(names.values()))
    if unknown or missing:
        raise UsageError(
            f"{path}: not {adapter.title}: unknown class folders {unknown or 'none'}, missing classes "
            f"{missing or 'none'}; get it from: {adapter.where}"
        )
    if len(opened.pictures) != adapter.pictures:
        raise UsageError(
            f"{path}: {len(opened.pictures):,} pictures, {adapter.title} has {adapter.pictures:,}; get it whole from: "
            f"{adapter.where}"
        )
    classes = tuple(names[folder] for folder in opened.folders)
    return msgspec.structs.replace(opened, name=name, classes=classes)


def _known(opened: Dataset, wanted: dict[str, str]) -> dict[str, str]:
    """Return the class of each folder, "" for an unknown one."""
    return {folder: wanted.get(_letters(folder)) or wanted.get(_letters(folder[1:]), "") for folder in opened.folders}


def published(task: str, name: str) -> list[PublishedRow]:
    """Return the published figures of a task on a set, nothing where none are known."""
    rows: list[PublishedRow] = []
    known = adapters()
    if task == "zero-shot" and name in known:
        source = "RemoteCLIP's table of twelve sets, as remembered; each row's mean was checked"
        rows += [PublishedRow(one["model"], float(one["top1"]), source) for one in known[name].published]
    for block in read_table(_HERE / "published.toml")["row"]:
        if block["task"] == task and name in block:
            rows += [
                PublishedRow(model, float(value), block["source"])
                for model, value in zip(block["models"], block[name], strict=True)
            ]
    return rows


def _letters(text: str) -> str:
    return "".join(letter for letter in class_name(text) if letter.isalnum())
