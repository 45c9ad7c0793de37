"""Data sets in the layouts in which they are published, with classes, splits and captions."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import UsageError
from overflight.runtime.sources.image import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

SPLITS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
TRAIN_SHARE = 0.8  # RemoteCLIP's rule where no split is published
LINES = "captions.jsonl"


class Picture(msgspec.Struct, frozen=True):
    """One picture: its file, class (-1: none), split, and captions. ``after`` is the later one of a change pair."""

    path: Path
    label: int
    split: str
    captions: tuple[str, ...] = ()
    after: Path | None = None
    changed: bool | None = None


class Dataset(msgspec.Struct, frozen=True):
    """A data set. ``protocol`` says where its splits come from; ``left_out`` counts files that are no pictures."""

    name: str
    layout: str
    protocol: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    left_out: int = 0

    def of_split(self, split: str) -> list[Picture]:
        """Return the pictures of a split. Raises UsageError for an empty one."""
        found = [one for one in self.pictures if one.split == split]
        if not found:
            there = ", ".join(sorted({one.split for one in self.pictures}))
            raise UsageError(f"{self.name}: no pictures in split {split!r}; it has {there}")
        return found

    def sha256(self, split: str) -> str:
        """Hash names, classes, captions and bytes of a split's pictures."""
        digest = hashlib.sha256()
        for one in self.of_split(split):
            later = "" if one.after is None else hash_file(one.after)
            name = self.classes[one.label] if one.label >= 0 else ""
            digest.update(f"{one.path.name}\0{name}\0{one.captions}\0{hash_file(one.path)}{later}\n".encode())
        return digest.hexdigest()


def open_dataset(path: Path, names: dict[str, str] | None = None, *, grouped: bool = False) -> Dataset:
    """Open a data set in whatever layout it has; ``names`` maps folders to class names.

    Raises UsageError for one that is not recognised, or whose parts do not fit each other.
    """
    if path.is_file() and path.suffix == ".json":
        return _captions_json(path)
    if (path / LINES).is_file():
        return _lines(path, names)
    found = sorted(path.glob("*.json")) if path.is_dir() else []
    if len(found) == 1:
        return _captions_json(found[0])
    if path.is_dir():
        return _folders(path, names, grouped)
    raise UsageError(f"{path}: no data set; expected a folder with a folder for each class, or a captions JSON file")


def class_name(folder: str) -> str:
    """Turn a folder's name into words: ``BareLand``, ``bare_land`` and ``bare-land`` are "bare land"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-/]+", " ", folder)
    return " ".join(spaced.lower().split())


def _folders(path: Path, names: dict[str, str] | None, grouped: bool) -> Dataset:
    """A folder for each class, by themselves or inside folders for each split; ``grouped``: inside topics."""

    def class_folders(root: Path) -> dict[str, Path]:
        around = _visible(root)
        return {one.name: one for outer in around for one in (_visible(outer) if grouped else [outer])}

    children = _visible(path)
    official = {one.name: SPLITS[one.name.lower()] for one in children if one.name.lower() in SPLITS}
    if official and len(official) != len(children):
        odd = sorted(one.name for one in children if one.name not in official)
        raise UsageError(f"{path}: folders of splits and others next to each other ({', '.join(odd)}); keep one kind")
    roots = [(path / name, split) for name, split in official.items()] or [(path, "")]
    places = [(root, split, class_folders(root)) for root, split in roots]
    folders = sorted({name for _, _, found in places for name in found})
    if len(folders) < 2:
        raise UsageError(f"{path}: {len(folders)} class folders; expected a folder for each of two classes or more")
    pictures: list[Picture] = []
    left_out = 0
    for root, split, found in places:
        for label, folder in enumerate(folders):
            inside, others = _pictures(found.get(folder, root / folder))
            left_out += others
            if not inside:
                raise UsageError(f"{root / folder}: no pictures of this class; remove the folder, or fill it")
            cut = int(TRAIN_SHARE * len(inside))
            pictures += [
                Picture(one, label, split or ("train" if place < cut else "test")) for place, one in enumerate(inside)
            ]
    protocol = "official split" if official else "first 80 % of each class by file name train, the others test"
    return Dataset(path.name, "folders", protocol, tuple(folders), _named(folders, names), tuple(pictures), left_out)


def _lines(path: Path, names: dict[str, str] | None) -> Dataset:
    """A JSON line for each picture: file, scene, split, captions."""
    try:
        lines = (path / LINES).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
        folders = sorted({one["scene"] for one in records})
        places = {folder: place for place, folder in enumerate(folders)}
        pictures = tuple(
            Picture(path / one["file"], places[one["scene"]], SPLITS[one["split"]], tuple(one["captions"]))
            for one in records
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path / LINES}: not caption lines ({error!r}); expected file, scene, split and captions in each"
        ) from error
    _require(pictures, path)
    return Dataset(path.name, "caption lines", "official split", tuple(folders), _named(folders, names), pictures)


def _captions_json(path: Path) -> Dataset:
    """RSICD, RSITMD and UCM captions (Karpathy's layout), and LEVIR-CC's pairs."""
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["images"]
        pair = any("changeflag" in one for one in records)
        pictures = tuple(_of_record(one, path.parent, pair=pair) for one in records)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path}: not a captions file ({error!r}); expected images with sentences and split"
        ) from error
    _require(pictures, path)
    return Dataset(path.stem, "LEVIR-CC pairs" if pair else "captions", "official split", (), (), pictures)


def _of_record(record: dict[str, Any], folder: Path, *, pair: bool) -> Picture:
    captions = tuple(one["raw"].strip() for one in record["sentences"])
    split, name = SPLITS[record["split"]], record["filename"]
    if pair:
        root = folder / "images" / record.get("filepath", record["split"])
        return Picture(root / "A" / name, -1, split, captions, root / "B" / name, bool(record["changeflag"]))
    places = [
        folder / name,
        folder / "images" / name,
        *([folder / record["filepath"] / name] if "filepath" in record else []),
    ]
    return Picture(next((one for one in places if one.is_file()), places[0]), -1, split, captions)


def _require(pictures: Iterable[Picture], path: Path) -> None:
    wanted = [one for picture in pictures for one in (picture.path, picture.after) if one is not None]
    missing = [one for one in wanted if not one.is_file()]
    if missing or not wanted:
        raise UsageError(f"{path}: {len(missing)} of {len(wanted)} pictures are missing, such as {missing[:1]}")


def _named(folders: list[str], names: dict[str, str] | None) -> tuple[str, ...]:
    """Name the classes by their folders, never by an order that a list of names happens to have."""
    if names is not None and set(names) != set(folders):
        raise UsageError(
            f"class names: missing {sorted(set(folders) - set(names))}, unknown {sorted(set(names) - set(folders))}"
        )
    found = tuple(names[folder] if names else class_name(folder) for folder in folders)
    if len(set(found)) != len(found):
        raise UsageError(f"two folders have one class name: {sorted(one for one in found if found.count(one) > 1)}")
    return found


def _visible(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith((".", "__")))


def _pictures(folder: Path) -> tuple[list[Path], int]:
    if not folder.is_dir():
        return [], 0
    files = [one for one in sorted(folder.rglob("*")) if one.is_file()]
    shown = [one for one in files if not any(part.startswith(".") for part in one.relative_to(folder).parts)]
    pictures = [one for one in shown if one.suffix.lower() in SUFFIXES]
    return pictures, len(files) - len(pictures)
