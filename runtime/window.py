"""A window: where a frame lies in the larger picture that it was cut from."""

from __future__ import annotations

import msgspec


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rectangle of a larger picture, in its pixels from the top left.

    ``transform`` maps the window's own column and row to the ground, as GDAL writes it: x = t0 + column·t1 + row·t2,
    y = t3 + column·t4 + row·t5, in the coordinates of the EPSG code ``epsg``; None where the file does not tell.
    """

    left: int
    top: int
    width: int
    height: int
    transform: tuple[float, float, float, float, float, float] | None = None
    epsg: int | None = None
