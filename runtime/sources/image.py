"""Reading one still: bounded in size, refused when it is torn or no picture at all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import SourceError, missing_extra
from overflight.runtime.frame import Frame

if TYPE_CHECKING:
    import os
    from types import ModuleType

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".ppm", ".pgm"})
MAX_PIXELS = 128_000_000  # above every aerial camera of today; 384 MB once decoded


def opencv() -> ModuleType:
    """Import OpenCV. Raises MissingError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("OpenCV", "cpu") from error
    return cv2


def read_image(path: str | os.PathLike[str], number: int = 0) -> Frame:
    """Read a still as the viewer shows it (EXIF orientation applied). Raises SourceError."""
    cv2 = opencv()
    path = Path(path)
    arrived_ns = time.monotonic_ns()
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; check the path") from error
    _refuse_huge(path)
    _refuse_torn(path, raw)
    try:
        pixels = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        kind = "an empty file" if not raw.size else "not a picture that OpenCV can decode"
        raise SourceError(f"{path}: {kind}; expected JPEG, PNG, TIFF, BMP or WebP: convert or remove it")
    return Frame(pixels, number, arrived_ns, order="bgr", name=path.name)


def _refuse_huge(path: Path) -> None:
    try:
        import imagesize
    except ImportError as error:
        raise missing_extra("imagesize", "cpu") from error
    try:
        width, height = imagesize.get(str(path))
    except (ValueError, OSError, IndexError, KeyError, TypeError):  # a torn header; the decoder judges the rest
        return
    if width * height > MAX_PIXELS:
        raise SourceError(
            f"{path}: {width} x {height} px is {width * height / 1e6:.0f} megapixels, the limit is "
            f"{MAX_PIXELS / 1e6:.0f}; cut it into tiles first"
        )


def _refuse_torn(path: Path, raw: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
    """Refuse a picture whose end is missing: the decoder would fill the rest with grey and say nothing."""
    content = raw.tobytes() if raw.size < 1 << 26 else b""
    if content.startswith(b"\xff\xd8"):  # the last scan must be followed by an end-of-image marker
        torn = content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")
    elif content.startswith(b"\x89PNG"):
        torn = b"IEND" not in content[-64:]
    else:
        torn = False
    if torn:
        raise SourceError(f"{path}: the picture is cut off after {raw.size} bytes; copy it again")
