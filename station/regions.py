"""Regions that a detector found, in COCO's JSON: each box is cut out and labelled; the answer is COCO JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.json_input import decode_json
from overflight.runtime.sources.image import read_image
from overflight.station.describe.describe import cover_group

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.bank import LabelBank
    from overflight.station.ground.tiles import Embed

CONTEXT = 0.15  # of a box's size, added around it: a thing is recognised by what it stands on
LEAST_PX = 8
MAX_BYTES = 1 << 30  # ten million boxes


# Tools write whole numbers as floats, and names of pictures instead of numbers.
Id = int | str | float


class CocoImage(msgspec.Struct, frozen=True):
    """A picture of the file, by COCO's field names."""

    id: Id
    file_name: str


class CocoBox(msgspec.Struct, frozen=True):
    """A region: ``bbox`` is left, top, width and height in pixels, empty for an annotation without one."""

    image_id: Id
    bbox: tuple[float, ...] = ()
    id: Id | None = None
    category_id: Id | None = None
    score: float | None = None


class CocoFile(msgspec.Struct, frozen=True):
    """What is read of a COCO file with pictures and annotations."""

    images: tuple[CocoImage, ...]
    annotations: tuple[CocoBox, ...]


def read_boxes(path: Path, image: Path | None = None) -> CocoFile:
    """Read COCO JSON: a data set, or a list of results, which needs ``image``. Raises UsageError."""
    try:
        raw: Any = decode_json(read_regular(path, MAX_BYTES, UsageError), Any)
        if isinstance(raw, list):
            if image is None:
                raise UsageError(f"{path}: a list of results without pictures; name the one picture")
            boxes = msgspec.convert(raw, tuple[CocoBox, ...])
            ids = list(dict.fromkeys(box.image_id for box in boxes))
            if len(ids) > 1:
                raise UsageError(f"{path}: results of {len(ids)} pictures; use COCO JSON with images and annotations")
            return CocoFile(tuple(CocoImage(one, str(image)) for one in ids), boxes)
        return msgspec.convert(raw, CocoFile)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected COCO JSON with images and annotations") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: not COCO JSON ({error}); expected images and annotations with bbox") from error


def label_boxes(file: CocoFile, folder: Path, bank: LabelBank, embed: Embed) -> dict[str, Any]:
    """Label every box and return COCO JSON: categories are the bank's labels, and "unknown".

    ``detected`` keeps the detector's own category. A box outside its picture or smaller than ``LEAST_PX`` is counted in
    ``info`` and left out, and so are annotations without a box and those of pictures that the file does not list or
    that cannot be read.
    """
    group = cover_group(bank)
    names = [*group.names, "unknown"]
    found: list[dict[str, Any]] = []
    small = 0
    boxless = sum(len(box.bbox) != 4 for box in file.annotations)
    unreadable: list[str] = []
    boxes: dict[Id, list[CocoBox]] = {}
    listed = {image.id for image in file.images}
    for box in file.annotations:
        if len(box.bbox) == 4:
            boxes.setdefault(box.image_id, []).append(box)
    for image in file.images:
        try:
            frame = read_image(folder / image.file_name)
        except SourceError as error:
            unreadable.append(str(error))
            continue
        pixels = frame.pixels[:, :, ::-1] if frame.order == "bgr" else frame.pixels
        for box in boxes.get(image.id, ()):
            part = _cut(pixels, box)
            if part is None:
                small += 1
                continue
            judged = group.judge(embed([part])[0])
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": image.id,
                    "bbox": list(box.bbox),
                    "area": box.bbox[2] * box.bbox[3],
                    "iscrowd": 0,
                    "category_id": names.index(judged.label or "unknown") + 1,
                    "score": judged.score,
                    "margin": judged.margin,
                    "reason": judged.reason,
                    "detected": {"id": box.id, "category_id": box.category_id, "score": box.score},
                }
            )
    return {
        "info": {
            "description": "regions labelled by Overflight",
            "model": bank.header.model,
            "tower": bank.header.tower,
            "bank": bank.sha256,
            "too_small_or_outside": small,
            "without_box": boxless,
            "without_picture": sum(box.image_id not in listed for box in file.annotations),
            "unreadable": unreadable,
        },
        "images": [{"id": image.id, "file_name": image.file_name} for image in file.images],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "annotations": found,
    }


def _cut(pixels: np.ndarray[Any, np.dtype[np.uint8]], box: CocoBox) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    if len(box.bbox) != 4:
        return None
    left, top, width, height = box.bbox
    if not np.isfinite(box.bbox).all() or width < LEAST_PX or height < LEAST_PX:
        return None
    tall, wide = pixels.shape[:2]
    x0, y0 = max(0, round(left - CONTEXT * width)), max(0, round(top - CONTEXT * height))
    x1, y1 = min(wide, round(left + (1 + CONTEXT) * width)), min(tall, round(top + (1 + CONTEXT) * height))
    if x1 - x0 < LEAST_PX or y1 - y0 < LEAST_PX:
        return None
    return np.ascontiguousarray(pixels[y0:y1, x0:x1])
