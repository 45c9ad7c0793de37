"""Boxes and masks: COCO and YOLO files, captions of boxes (B2C), boxes of masks (M2B), and near copies left out."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.duplicates import SAME, difference_hash, distance
from overflight.runtime.sources.image import opencv, read_image
from overflight.station.evaluate.counting import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MANY = 10  # from here on RemoteCLIP's captions say "many"


class Box(NamedTuple):
    """An object: class name, left, top, width and height in pixels."""

    name: str
    left: float
    top: float
    width: float
    height: float


class Boxed(NamedTuple):
    """A picture with its objects."""

    path: Path
    width: int
    height: int
    boxes: tuple[Box, ...]


def read_coco(path: Path, folder: Path) -> list[Boxed]:
    """Read a COCO instances file; a polygon without a box gets the rectangle around it. Raises UsageError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        names = {one["id"]: str(one["name"]) for one in data["categories"]}
        found: dict[object, list[Box]] = {one["id"]: [] for one in data["images"]}
        for one in data["annotations"]:
            found[one["image_id"]].append(Box(names[one["category_id"]], *_coco_box(one)))
        return [
            Boxed(folder / one["file_name"], int(one["width"]), int(one["height"]), tuple(found[one["id"]]))
            for one in data["images"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path}: not a COCO instances file ({error!r}); expected images, annotations, categories"
        ) from error


def read_yolo(folder: Path, names: Sequence[str]) -> list[Boxed]:
    """Read pictures that have a text file of boxes (class, middle and size as shares) next to them.

    Raises UsageError for a line that is no box.
    """
    found = []
    for path in sorted(folder.glob("*.jpg")):
        text = path.with_suffix(".txt")
        if not text.is_file():
            continue
        width, height = read_image(path).size
        boxes = []
        for number, line in enumerate(text.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                boxes.append(_yolo_box(line, names, width, height))
            except (ValueError, IndexError) as error:
                raise UsageError(
                    f"{text}: line {number}: not a box ({error}); expected class, middle and size as shares of 1"
                ) from error
        found.append(Boxed(path, width, height, tuple(boxes)))
    return found


def _yolo_box(line: str, names: Sequence[str], width: int, height: int) -> Box:
    """Read a line of YOLO's. Raises ValueError or IndexError."""
    kind, x, y, w, h = line.split()[:5]
    shares = tuple(map(float, (x, y, w, h)))
    if int(kind) < 0 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"got {line.strip()[:60]!r}")
    across, down, wide, tall = shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height
    return Box(names[int(kind)], across - wide / 2, down - tall / 2, wide, tall)


def captions_of(picture: Boxed) -> tuple[str, ...]:
    """Return five captions of a picture's boxes, as RemoteCLIP's Box-to-Caption rules describe.

    The first two say what is in the middle and what is not; the other three list the objects by number, in three
    orders. No code was published for it; this follows the text of arXiv:2306.11029, Algorithm 1.
    """
    middle = [box for box in picture.boxes if _in_middle(box, picture)]
    edge = [box for box in picture.boxes if not _in_middle(box, picture)]
    counts = Counter(box.name for box in picture.boxes)
    by_count = [name for name, _ in counts.most_common()]
    nothing = "There is nothing of the known kinds in the picture."
    return (
        f"{_listed(Counter(box.name for box in middle))} in the middle of the picture." if middle else nothing,
        f"{_listed(Counter(box.name for box in edge))} near the edge of the picture." if edge else nothing,
        *(
            f"There {_are(counts, order)} {_listed(counts, order).lower()} in the picture." if counts else nothing
            for order in (by_count, by_count[::-1], sorted(counts))
        ),
    )


def boxes_of_mask(mask: NDArray[np.uint8], names: dict[int, str], least_px: int = 4) -> list[Box]:
    """Return the smallest upright rectangle around each connected part of each class of a mask (M2B)."""
    cv2, found = opencv(), []
    for value in sorted(set(np.unique(mask).tolist()) & names.keys()):
        _, _, parts, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=8)
        for left, top, width, height, area in parts[1:].tolist():
            if area >= least_px:
                found.append(Box(names[value], left, top, width, height))
    return found


def without_copies(
    paths: Iterable[Path], against: Iterable[Path] = (), *, within: bool = True
) -> tuple[list[Path], list[tuple[Path, Path]]]:
    """Leave out pictures that look like one of ``against`` (a test set) or, ``within``, like an earlier one, by hash.

    Return what is kept, and each picture that is left out with the one that it looks like.
    """
    hashes: list[int] = []
    owners: list[Path] = []
    for path in against:
        hashes.append(_hash(path))
        owners.append(path)
    kept, left_out = [], []
    for path in paths:
        one = _hash(path)
        if hashes:
            bits = distance(one, np.array(hashes, np.uint64))
            if bits.min() <= SAME:
                left_out.append((path, owners[int(bits.argmin())]))
                continue
        kept.append(path)
        if within:
            hashes.append(one)
            owners.append(path)
    return kept, left_out


def _hash(path: Path) -> int:
    return difference_hash(np.ascontiguousarray(read_image(path).pixels[:, :, ::-1]))


def _coco_box(one: dict[str, object]) -> tuple[float, float, float, float]:
    if "bbox" in one:
        left, top, width, height = (float(part) for part in one["bbox"])  # type: ignore[attr-defined]
        return left, top, width, height
    points = np.concatenate([np.reshape(part, (-1, 2)) for part in one["segmentation"]])  # type: ignore[attr-defined]
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _in_middle(box: Box, picture: Boxed) -> bool:
    """Whether a box's middle is in the middle half of both sides."""
    x, y = (box.left + box.width / 2) / picture.width, (box.top + box.height / 2) / picture.height
    return 0.25 <= x <= 0.75 and 0.25 <= y <= 0.75


def _listed(counts: Counter[str], order: Sequence[str] | None = None) -> str:
    parts = [_counted(counts[name], name) for name in order or list(counts)]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return text[0].upper() + text[1:]


def _counted(count: int, name: str) -> str:
    if count == 1:
        return f"one {name}"
    plural = name if name.endswith("s") else f"{name}s"
    return f"{WORDS[count - 1]} {plural}" if count < MANY else f"many {plural}"


def _are(counts: Counter[str], order: Sequence[str]) -> str:
    return "is" if counts[order[0]] == 1 else "are"
