"""Localisation by tiles: which tiles a text finds, compared with the boxes of the objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from overflight.runtime.resize import Resizer
from overflight.runtime.sources.image import read_image
from overflight.runtime.tiles import cut
from overflight.station.evaluate.measures import Measure, cumulative_iou, mean_iou, resampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.station.evaluate.boxes import Boxed
    from overflight.station.evaluate.embedding import Embeddings

GRID = (6, 8)
SPREAD = 1.0  # a tile is found when its cosine is so many deviations above the picture's mean


def localisation(pictures: Sequence[Boxed], name: str, prompt: str, embeddings: Embeddings) -> dict[str, Measure]:
    """Return MIoU and CIoU of the tiles that a prompt finds, and of taking the whole picture, for comparison."""
    text = embeddings.texts([prompt.replace("{}", name)])[0]
    found, whole = [], []
    for picture in pictures:
        boxes = [box for box in picture.boxes if box.name == name]
        if not boxes:
            continue
        truth = np.zeros((picture.height, picture.width), np.bool_)
        for box in boxes:
            truth[max(0, int(box.top)) : int(np.ceil(box.top + box.height)),
                  max(0, int(box.left)) : int(np.ceil(box.left + box.width))] = True  # fmt: skip
        answer = _answer(picture, text, embeddings)
        found.append(((truth & answer).sum(), (truth | answer).sum()))
        whole.append((truth.sum(), truth.size))
    overlaps, all_of_it = np.array(found, np.float64), np.array(whole, np.float64)
    return {
        "MIoU": resampled(overlaps, mean_iou),
        "CIoU": resampled(overlaps, cumulative_iou),
        "MIoU of the whole picture": resampled(all_of_it, mean_iou),
        "CIoU of the whole picture": resampled(all_of_it, cumulative_iou),
    }


def _answer(picture: Boxed, text: NDArray[np.float32], embeddings: Embeddings) -> NDArray[np.bool_]:
    rows, columns = GRID
    pixels = np.ascontiguousarray(read_image(picture.path).pixels[:, :, ::-1])
    resizer = Resizer(embeddings.bundle.manifest.resize)
    tiles = np.empty((rows * columns, resizer.side, resizer.side, 3), np.uint8)
    for tile, part in zip(tiles, cast("list[NDArray[np.uint8]]", cut(pixels, rows, columns)), strict=True):
        resizer.resize(part, tile)
    cosines = embeddings.frames(tiles) @ text
    chosen = (cosines >= cosines.mean() + SPREAD * cosines.std()).reshape(rows, columns)
    down = np.minimum(np.arange(picture.height) * rows // picture.height, rows - 1)
    across = np.minimum(np.arange(picture.width) * columns // picture.width, columns - 1)
    answer: NDArray[np.bool_] = chosen[down][:, across]
    return answer
