"""Pictures of what no scene is, from folders of pictures of anything: crops of large ones, collages of cut-out things.

For example the Debian packages `tuxpaint-stamps-default` (photographs of things, cut out) and the folders `abstract`
and `desktop` of `mate-backgrounds`, unpacked with `dpkg -x`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 256
CROPS = 24  # of each large picture
LARGE = 600  # pixels: smaller pictures are things to paste


def gather(folders: list[Path], seed: int = 0) -> list[np.ndarray]:
    """Return uint8 pictures `[256, 256, 3]`: as many collages as there are things, and crops of the large pictures."""
    draw = np.random.default_rng(seed)
    things, crops = [], []
    for path in sorted(path for folder in folders for path in folder.rglob("*.*")):
        try:
            image = Image.open(path).convert("RGBA")
        except (UnidentifiedImageError, OSError):
            continue
        if min(image.size) < LARGE:
            things.append(image)
        else:
            crops += [cut(image, draw) for _ in range(CROPS)]
    return [np.asarray(crop) for crop in crops] + [collage(things, crops, draw) for _ in things]


def cut(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Return a square crop of between a twentieth and all of a picture's shorter side."""
    side = min(image.size) * float(np.exp(draw.uniform(np.log(0.05), 0.0)))
    left, top = draw.uniform(0, image.width - side), draw.uniform(0, image.height - side)
    return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def collage(things: list[Image.Image], grounds: list[Image.Image], draw: np.random.Generator) -> np.ndarray:
    """Return up to nine things, turned and scaled, on a plain ground or on a crop."""
    if grounds and draw.random() < 0.5:
        ground = grounds[int(draw.integers(len(grounds)))].copy()
    else:
        ground = Image.new("RGB", (SIDE, SIDE), tuple(int(level) for level in draw.integers(0, 256, 3)))
    for _ in range(int(draw.integers(1, 10))):
        thing = things[int(draw.integers(len(things)))]
        size = max(8, int(SIDE * draw.uniform(0.2, 1.3)))
        scaled = thing.resize((size, max(1, size * thing.height // thing.width)), Image.Resampling.BICUBIC)
        turned = scaled.rotate(float(draw.uniform(0, 360)), expand=True)
        corner = tuple(int(place) for place in draw.integers(-SIDE // 4, SIDE * 3 // 4, 2))
        ground.paste(turned, corner, turned)
    return np.asarray(ground)
