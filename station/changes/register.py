"""Registration: how far two pictures of one ground are shifted or turned against each other, and whether that is sure.

Phase correlation (Kuglin and Hines, "The phase correlation image alignment method", 1975) of edges rather than of grey
levels, for light and season change the latter; rotation and scale from the log-polar spectrum (Reddy and Chatterji,
"An FFT-based technique for translation, rotation, and scale-invariant image registration", 1996).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Grey = NDArray[np.float32]

AGREE_PX = 1.5  # patches whose shift is this near to the median agree with it
LEAST_AGREEMENT = 0.5
MOST_TURN_DEG = 1.0
MOST_SCALE = 0.02
_PATCHES = 3  # along each edge
_EDGE_PX = 64  # a picture smaller than this cannot be registered
_LEAST_TEXTURE = 0.05  # spread of edges; one grey level makes about 1, and rounding in one colour 0.01


class Registration(msgspec.Struct, frozen=True):
    """How the second picture lay on the first, in pixels of the grid on which they are compared.

    ``right_px`` and ``down_px`` are the shift that was corrected; ``agreement`` the share of patches that agree with
    it. ``state`` is "unverified" where too few do: the pictures then differ too much to say. ``turned_deg`` and
    ``scale`` are what the spectra say, 0 and 1 for a registered pair. ``error_m`` is set for flights joined by their
    footprints.
    """

    state: Literal["exact", "corrected", "unverified", "footprints"]
    right_px: float = 0.0
    down_px: float = 0.0
    agreement: float = 0.0
    turned_deg: float = 0.0
    scale: float = 1.0
    error_m: float | None = None

    @property
    def shift_px(self) -> float:
        """The length of the shift."""
        return float(np.hypot(self.right_px, self.down_px))


def register(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    known: NDArray[np.bool_],
    *,
    most_px: float,
    names: str,
    every: float = 1.0,
) -> Registration:
    """Measure a pair of RGB pictures of one size. Raises UsageError for a shift, a turn or a scale that is too large.

    ``known`` is where both have a picture; ``most_px`` the largest shift that is corrected, in pixels of the grid, of
    which one of these pictures is ``every``. A shift is believed only where most patches agree on it.
    """
    first, second = _edges(before, known), _edges(after, known)
    if min(first.shape) < _EDGE_PX or float(known.mean()) < 0.2:
        return Registration("unverified")
    shifts = _patch_shifts(first, second)
    if len(shifts) <= _PATCHES**2 / 2:  # calm water, snow, a missing band: most of it is one colour
        return Registration("unverified")
    middle = np.median(shifts, axis=0)
    agreement = _agreement(shifts)
    if agreement < LEAST_AGREEMENT:
        turned = _turned(first, second)
        if turned is not None and (abs(turned[0]) > MOST_TURN_DEG or abs(turned[1] - 1) > MOST_SCALE):
            raise UsageError(
                f"{names}: the second picture is turned by {turned[0]:.1f} degrees and scaled by {turned[1]:.3f}; at "
                f"most {MOST_TURN_DEG:g} degree and {MOST_SCALE:.0%} are compared: georeference or align both first"
            )
        return Registration("unverified", agreement=round(agreement, 3))
    right, down = (round(float(value) * every, 2) for value in middle)
    length = float(np.hypot(right, down))
    if length > most_px:
        raise UsageError(
            f"{names}: the second picture is shifted by {length:.1f} px ({right:+.1f} right, {down:+.1f} down); at "
            f"most {most_px:.1f} px are corrected: georeference both, or align them first"
        )
    state: Literal["exact", "corrected"] = "exact" if length < 0.5 else "corrected"
    return Registration(state, right, down, round(agreement, 3))


def _patch_shifts(first: Grey, second: Grey) -> NDArray[np.float64]:
    """Return the shift (right, down) of overlapping patches and of the whole picture, of those with texture."""
    height, width = first.shape
    tall, wide = (_dft_size(max(_EDGE_PX // 2, round(0.55 * edge))) for edge in (height, width))
    corners = [(0, 0, _dft_size(height), _dft_size(width))] + [
        (round(row * (height - tall) / (_PATCHES - 1)), round(column * (width - wide) / (_PATCHES - 1)), tall, wide)
        for row in range(_PATCHES)
        for column in range(_PATCHES)
    ]
    patches = [
        (first[top : top + tall, left : left + wide], second[top : top + tall, left : left + wide])
        for top, left, tall, wide in corners
    ]
    shifts = [_shift(one, two)[:2] for one, two in patches if min(one.std(), two.std()) > _LEAST_TEXTURE]
    return np.array(shifts).reshape(-1, 2)


def _dft_size(length: int) -> int:
    """Return the largest even length that OpenCV does not pad: padded to an odd one, its answer is half a pixel off."""
    cv2 = opencv()
    return next(size for size in range(length, 1, -1) if size % 2 == 0 and cv2.getOptimalDFTSize(size) == size)


def _shift(first: Grey, second: Grey) -> tuple[float, float, float]:
    """Return how far the second lies right of and below the first, and how clear the peak is."""
    cv2 = opencv()
    window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_32F)
    (right, down), response = cv2.phaseCorrelate(np.ascontiguousarray(first), np.ascontiguousarray(second), window)
    return float(right), float(down), float(response)


def _turned(first: Grey, second: Grey) -> tuple[float, float] | None:
    """Return the turn in degrees and the scale of the second, None where patches do not agree then."""
    cv2 = opencv()
    side = 2 ** int(np.log2(min(first.shape)))
    one, two = (cv2.resize(part, (side, side)) for part in (first, second))
    spectra = [
        np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(part * _hann(side))))).astype(np.float32) for part in (one, two)
    ]
    polar = [
        cv2.warpPolar(part * _high_pass(side), (side, 360), (side / 2, side / 2), side / 2, cv2.WARP_POLAR_LOG)
        for part in spectra
    ]
    along, around, _ = _shift(polar[0], polar[1])
    scale = float(np.exp(along * np.log(side / 2) / side))
    best: tuple[float, float, float, Grey] | None = None
    for turn in (around, around - 180, around + 180):
        for zoom in (scale, 1 / scale):
            matrix = cv2.getRotationMatrix2D((side / 2, side / 2), turn, zoom)
            back = cv2.warpAffine(two, matrix, (side, side))
            response = _shift(one, back)[2]
            if best is None or response > best[2]:
                best = (turn, 1 / zoom, response, back)
    shifts = np.empty((0, 2)) if best is None else _patch_shifts(one, best[3])
    if best is None or not len(shifts) or _agreement(shifts) < LEAST_AGREEMENT:
        return None
    return (best[0] + 180) % 360 - 180, best[1]


def _agreement(shifts: NDArray[np.float64]) -> float:
    """Return the share of patches whose shift is near to their median."""
    return float((np.hypot(*(shifts - np.median(shifts, axis=0)).T) <= AGREE_PX).mean())


def _edges(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> Grey:
    """Return how strong edges are, compressed, and 0 near missing pixels."""
    cv2 = opencv()
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    strength = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    inner = cv2.erode(known.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    edges: Grey = np.where(inner, np.sqrt(strength), 0).astype(np.float32)
    mean = np.float32(edges[inner].mean() if inner.any() else 0)
    centred: Grey = edges - mean * inner.astype(np.float32)
    return centred


def _hann(side: int) -> Grey:
    return np.asarray(np.outer(np.hanning(side), np.hanning(side)), np.float32)


def _high_pass(side: int) -> Grey:
    across = np.cos(np.pi * np.linspace(-0.5, 0.5, side))
    product = np.outer(across, across)
    return np.asarray((1 - product) * (2 - product), np.float32)
