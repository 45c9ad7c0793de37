"""Planes meet the tower as the exact way would have it: converted in float at full size, then filtered.

Covers: runtime/planes.py, runtime/resampling.py, runtime/sources/depth.py.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.bundle import Resize
from overflight.runtime.planes import Matrix, Planes
from overflight.runtime.resize import Resizer

Image = pytest.importorskip("PIL.Image")
MATRICES: list[Matrix] = ["bt601", "bt709", "bt2020", "fcc", "smpte240m", "ycgco"]
SITINGS = [(0.0, 0.5), (0.5, 0.5), (0.0, 0.0), (0.5, 0.0), (0.0, 1.0), (0.5, 1.0)]
SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593), "fcc": (0.3, 0.11),
          "smpte240m": (0.212, 0.087)}  # fmt: skip


def scene(height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """A natural spectrum in colours that no matrix clips: float ``[height, width, 3]`` of 0 to 255."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    falloff = 1 / np.maximum(np.hypot(down, across), 1 / max(height, width))
    smooth = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * falloff[:, :, None], axes=(0, 1)).real
    smooth = (smooth - smooth.min((0, 1))) / np.ptp(smooth, axis=(0, 1))
    return np.asarray(40 + 175 * smooth)


def forward(rgb: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Luma of 0 to 1 and chroma of -0.5 to 0.5, from the definitions (ITU-T H.273)."""
    red, green, blue = (rgb / 255).transpose(2, 0, 1)
    if matrix == "ycgco":
        return np.stack([red / 4 + green / 2 + blue / 4, -red / 4 + green / 2 - blue / 4, red / 2 - blue / 2])
    red_share, blue_share = SHARES[matrix]
    luma = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
    return np.stack([luma, (blue - luma) / (2 * (1 - blue_share)), (red - luma) / (2 * (1 - red_share))])


def quantised(yuv: NDArray[np.float64], bits: int, full: bool) -> list[NDArray[np.uint16]]:
    depth, most = 1 << (bits - 8), (1 << bits) - 1
    luma = yuv[0] * most if full else (16 + 219 * yuv[0]) * depth
    chroma = yuv[1:] * most + 128 * depth if full else (128 + 224 * yuv[1:]) * depth
    kind = np.uint8 if bits == 8 else np.uint16
    return [np.clip(np.round(plane), 0, most).astype(kind) for plane in (luma, *chroma)]


def upsampled(plane: NDArray[np.float64], length: int, step: int, offset: float) -> NDArray[np.float64]:
    """Interpolate the last axis linearly, from samples at ``offset + step * k`` to every whole place."""
    places = offset + step * np.arange(plane.shape[-1])
    return np.apply_along_axis(lambda line: np.interp(np.arange(length), places, line), -1, plane)


def exact(picture: Planes, side: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Convert in float at full size, then filter with Pillow in float; and which results no clipping has touched."""
    height, width = picture.luma.shape
    depth, most = 1 << (picture.bits - 8), (1 << picture.bits) - 1
    across, down = picture.subsampling
    luma = picture.luma.astype(float)
    chroma = [plane.astype(float) for plane in picture.chroma]
    chroma = [upsampled(plane, width, across, picture.siting[0]) for plane in chroma]
    chroma = [upsampled(plane.T, height, down, picture.siting[1]).T for plane in chroma]
    y = luma / most if picture.full_range else (luma / depth - 16) / 219
    first, second = ((c - 128 * depth) / most if picture.full_range else (c / depth - 128) / 224 for c in chroma)
    if picture.matrix == "ycgco":
        rgb = np.stack([y - first + second, y + first, y - first - second])
    else:
        red_share, blue_share = SHARES[picture.matrix]
        red, blue = y + 2 * (1 - red_share) * second, y + 2 * (1 - blue_share) * first
        rgb = np.stack([red, (y - red_share * red - blue_share * blue) / (1 - red_share - blue_share), blue])
    rgb *= 255
    resized = np.stack(
        [np.asarray(Image.fromarray(one.astype(np.float32), "F").resize((side, side), 3)) for one in rgb], axis=2
    )
    inside = ((rgb >= 0) & (rgb <= 255)).all() and ((resized >= 0) & (resized <= 255)).all(axis=2)
    return resized, np.broadcast_to(inside, (side, side))


def planes_of(
    height: int, width: int, matrix: Matrix, full: bool, bits: int, subsampling: tuple[int, int],
    siting: tuple[float, float],
) -> Planes:  # fmt: skip
    luma, *chroma = quantised(forward(scene(height, width), matrix), bits, full)
    across, down = subsampling
    return Planes(
        luma, tuple(plane[::down, ::across] for plane in chroma), matrix, full, bits, subsampling, siting
    )  # fmt: skip


def difference(picture: Planes, side: int = 48) -> tuple[float, float]:
    out = np.empty((side, side, 3), np.uint8)
    Resizer(Resize(side, "bicubic", "squash")).resize(picture, out)
    reference, inside = exact(picture, side)
    assert inside.mean() > 0.9
    apart = np.abs(out.astype(float) - reference)[inside]
    return float(apart.mean()), float(apart.max())


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(("full", "bits"), [(False, 8), (True, 8), (False, 10), (True, 12)])
def test_every_matrix_and_range(matrix: Matrix, full: bool, bits: int) -> None:
    """Only the last rounding is left: a mean of a quarter of a grey level, never more than a half."""
    mean, most = difference(planes_of(180, 320, matrix, full, bits, (2, 2), (0.0, 0.5)))
    assert mean <= 0.3
    assert most <= 0.51


@pytest.mark.parametrize("siting", SITINGS)
@pytest.mark.parametrize("size", [(180, 320), (181, 321), (40, 50)])
def test_every_siting(siting: tuple[float, float], size: tuple[int, int]) -> None:
    """Chroma lies where the stream says, also at the edges, in odd sizes and when a picture is enlarged."""
    mean, most = difference(planes_of(*size, "bt709", False, 8, (2, 2), siting))
    assert mean <= 0.3
    assert most <= 0.51


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (1, 2), (4, 1), (4, 4)])
def test_every_subsampling(subsampling: tuple[int, int]) -> None:
    """4:4:4, 4:2:2, 4:4:0, 4:1:1 and 4:1:0."""
    mean, most = difference(planes_of(180, 320, "bt601", False, 8, subsampling, (0.0, 0.0)))
    assert mean <= 0.3
    assert most <= 0.51


def test_another_siting_is_another_picture() -> None:
    """The proof can fail: chroma taken half a sample aside is seen."""
    picture = planes_of(180, 320, "bt709", False, 8, (2, 2), (0.0, 0.5))
    moved = planes_of(180, 320, "bt709", False, 8, (2, 2), (0.5, 0.5))
    assert np.abs(exact(picture, 48)[0] - exact(moved, 48)[0]).max() > 0.1


@pytest.mark.parametrize(("top", "left", "bottom", "right"), [(0, 0, 90, 160), (31, 17, 120, 201), (90, 160, 181, 321)])
def test_a_part_is_cut_from_the_whole(top: int, left: int, bottom: int, right: int) -> None:
    """A tile of odd corners keeps its chroma in place, inside of the border that the cut has changed."""
    picture = planes_of(181, 321, "bt709", False, 8, (2, 2), (0.0, 0.5))
    part = picture.crop(top, left, bottom, right)
    whole = exact_pixels(picture)[top:bottom, left:right]
    assert np.abs(exact_pixels(part) - whole)[2:-2, 2:-2].max() < 1e-9


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("siting", SITINGS)
def test_a_turned_picture_is_the_picture_turned(quarters: int, siting: tuple[float, float]) -> None:
    """Luma and chroma turn together, wherever chroma lies."""
    picture = planes_of(180, 320, "bt709", False, 8, (2, 2), siting)
    turned = exact_pixels(picture.turn(quarters))
    assert np.abs(turned - np.rot90(exact_pixels(picture), quarters)).max() < 1e-9


@pytest.mark.parametrize("siting", SITINGS)
def test_a_mirrored_picture_is_the_picture_mirrored(siting: tuple[float, float]) -> None:
    """The last chroma sample becomes the first, and lies elsewhere."""
    picture = planes_of(36, 62, "bt709", False, 8, (2, 2), siting)
    mirrored = exact_pixels(picture.mirror())
    assert np.abs(mirrored - exact_pixels(picture)[:, ::-1]).max() < 1e-9


def exact_pixels(picture: Planes) -> NDArray[np.float64]:
    """The picture in colour at full size, unrounded."""
    height, width = picture.luma.shape
    across, down = picture.subsampling
    chroma = [upsampled(plane.astype(float), width, across, picture.siting[0]) for plane in picture.chroma]
    chroma = [upsampled(plane.T, height, down, picture.siting[1]).T for plane in chroma]
    matrix, offset = picture.conversion()
    return np.asarray(np.stack([picture.luma, *chroma], axis=2) @ matrix.T + offset)


@pytest.mark.parametrize("fit", ["squash", "crop", "letterbox"])
def test_eyes_and_tower_see_the_same(fit: str) -> None:
    """What is drawn for people is the same picture within two levels, and each fit cuts the same part."""
    picture = planes_of(180, 320, "bt709", False, 8, (2, 2), (0.5, 0.5))
    resizer = Resizer(Resize(48, "bicubic", fit))  # type: ignore[arg-type]
    planes, colours = np.empty((48, 48, 3), np.uint8), np.empty((48, 48, 3), np.uint8)
    resizer.resize(picture, planes)
    resizer.resize(picture.rgb(), colours)
    assert np.abs(planes.astype(int) - colours).max() <= 2


def test_grey_has_no_colour() -> None:
    """A thermal camera's single plane becomes three equal ones, in either range."""
    luma = np.full((40, 60), 126, np.uint8)
    for full, level in [(True, 126), (False, round((126 - 16) * 255 / 219))]:
        picture = Planes(luma, (), "grey", full, subsampling=(1, 1))
        out = np.empty((16, 16, 3), np.uint8)
        Resizer(Resize(16, "bicubic", "squash")).resize(picture, out)
        assert (out == level).all()
        assert (picture.rgb() == level).all()


def test_pixels_that_are_not_square_keep_their_shape() -> None:
    """Letterbox and crop fit the picture as it is shown: 720 x 576 at 64:45 is 16:9."""
    wide = Planes(np.full((576, 720), 235, np.uint8), (), "grey", subsampling=(1, 1), pixel_aspect=64 / 45)
    out = np.empty((64, 64, 3), np.uint8)
    Resizer(Resize(64, "bicubic", "letterbox")).resize(wide, out)
    rows = np.flatnonzero((out[:, :, 0] == 255).all(axis=1))
    assert len(rows) == 36  # 64 * 9 / 16


def test_extremes_are_clipped_and_do_not_wrap() -> None:
    """Whiter than white stays white."""
    for luma, chroma in itertools.product((0, 255), repeat=2):
        picture = Planes(np.full((8, 8), luma, np.uint8), tuple(np.full((4, 4), chroma, np.uint8) for _ in "uv"))
        out = np.empty((4, 4, 3), np.uint8)
        Resizer(Resize(4, "bicubic", "squash")).resize(picture, out)
        matrix, offset = picture.conversion()
        expected = np.clip(matrix @ [luma, chroma, chroma] + offset, 0, 255)
        assert np.abs(out[0, 0] - expected).max() <= 0.51
