"""Draw the pictures of the card: the confusion of the scenes, and a sheet of a flight's frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

CELL = 22
MARGIN = 150
INK = (33, 37, 41)
PAPER = (255, 255, 255)
LINE = (233, 236, 239)


def shade(share: float, right: bool) -> tuple[int, int, int]:
    """Return a cell's colour: green on the diagonal, red off it, deeper with the share."""
    deep = (22, 128, 84) if right else (196, 44, 44)
    weight = share if right else min(1.0, 0.25 + 2.5 * share)
    red, green, blue = (round(p + (d - p) * weight) for p, d in zip(PAPER, deep, strict=True))
    return red, green, blue


def draw_confusion(table: np.ndarray, names: list[str], path: Path) -> None:
    """Write a PNG of counts `[truth, guess]`, rows as shares of the truth."""
    count = len(names)
    side = MARGIN + count * CELL + 10
    image = Image.new("RGB", (side, side), PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    share = table / table.sum(1, keepdims=True)
    for row in range(count):
        top = MARGIN + row * CELL
        pen.text((MARGIN - 8, top + CELL / 2), names[row], INK, font, anchor="rm")
        for column in range(count):
            left = MARGIN + column * CELL
            box = (left, top, left + CELL - 1, top + CELL - 1)
            filled = shade(share[row, column], row == column) if table[row, column] else PAPER
            pen.rectangle(box, filled, LINE)
            if table[row, column]:
                ink = PAPER if row == column and share[row, column] > 0.5 else INK
                middle = (left + CELL / 2, top + CELL / 2)
                pen.text(middle, str(table[row, column]), ink, font, anchor="mm")
    columns = Image.new("RGB", (MARGIN - 8, count * CELL), PAPER)
    pen = ImageDraw.Draw(columns)
    for column in range(count):
        pen.text((0, column * CELL + CELL / 2), names[column], INK, font, anchor="lm")
    image.paste(columns.rotate(90, expand=True), (MARGIN, 0))
    image.quantize(64).save(path, optimize=True)


THUMB = (270, 152)
BAND = 20


def draw_contact(frames: list[tuple[str, np.ndarray]], path: Path, columns: int = 4) -> None:
    """Write a JPEG sheet of captioned RGB frames, in reading order."""
    width, height = THUMB[0], THUMB[1] + BAND
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, (caption, pixels) in enumerate(frames):
        row, column = divmod(place, columns)
        sheet.paste(Image.fromarray(pixels).resize(THUMB, Image.Resampling.BICUBIC), (column * width, row * height))
        pen.text((column * width + 5, row * height + THUMB[1] + 2), caption, INK, font)
    sheet.save(path, quality=82, optimize=True)
