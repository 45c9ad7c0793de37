"""The heap while an engine loads: large blocks go back to the system as soon as they are freed."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_M_MMAP_THRESHOLD = -3  # malloc.h
_LOADING = 256 << 10
_FLYING = 32 << 20


@contextmanager
def returning_large_blocks() -> Iterator[None]:
    """Keep glibc from holding on to freed weights.

    ONNX Runtime copies and repacks weights one by one. glibc raises its mmap threshold with every large block that is
    freed, so that later copies come from the heap and leave holes there that are never given back: the loaded L/16
    tower then takes up to 1.7 times its weights, and a different share in every run. With the threshold held low
    while loading it takes its weights once. Without glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _LOADING)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _FLYING)
