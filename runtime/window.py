"""A window: where a frame lies in the larger picture that it was cut from."""

from __future__ import annotations

import msgspec


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rectangle of a larger picture, in its pixels from the top left.

    ``transform`` maps the window's own column and row to the ground, as GDAL writes it: x = t0 + column·t1 + row·t2,
    y = t3 + column·t4 + row·t5, in the coordinates of the EPSG code ``epsg``; None where the file does not say.
    ``gsd_m`` is the ground sample distance in its middle. ``bands`` are the bands shown as red, green and blue, counted
    from 1, where the file does not say which are; ``stretch`` the range of values that was mapped to 0 to 255.
    """

    left: int
    top: int
    width: int
    height: int
    transform: tuple[float, float, float, float, float, float] | None = None
    epsg: int | None = None
    gsd_m: float | None = None
    bands: tuple[int, ...] | None = None
    stretch: tuple[float, float] | None = None
