"""A made-up ground over five dates, whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from overflight.runtime.bank import LabelBank

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RED, GREEN, BLUE = (225, 20, 20), (20, 225, 20), (20, 20, 225)
DATES = ("2020-05-01", "2021-05-01", "2022-05-01", "2023-05-01", "2024-05-01")


@pytest.fixture
def bank(colour_bank: LabelBank) -> LabelBank:
    """Return a bank whose cover is a colour."""
    header = colour_bank.header
    labels = tuple(msgspec.structs.replace(label, group="cover") for label in header.labels)
    return LabelBank.make(
        msgspec.structs.replace(header, labels=labels, exclusive=("cover",), threshold=0.3), colour_bank.vectors
    )


@pytest.fixture
def paint() -> Callable[[dict[tuple[int, int], tuple[int, int, int]]], Any]:
    """Return a painter of a red ground of 4 x 4 tiles with edges, of which some tiles have another colour."""
    random = np.random.default_rng(2)
    texture = np.kron(random.integers(-20, 21, (32, 32, 1)), np.ones((4, 4, 1))).astype(int)

    def make(other: dict[tuple[int, int], tuple[int, int, int]]) -> Any:
        pixels = np.full((128, 128, 3), RED, int)
        for (row, column), colour in other.items():
            pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = colour
        return np.clip(pixels + texture, 1, 255).astype(np.uint8)

    return make


@pytest.fixture
def five_dates(paint: Any, geotiff: Any, tmp_path: Path) -> list[Path]:
    """Write five mosaics: two tiles turn green in 2022 and stay, one turns blue in 2021 only, one green in 2024."""
    lasting: dict[Any, Any] = {(0, 0): GREEN, (0, 1): GREEN}
    grounds: list[dict[Any, Any]] = [{}, {(3, 3): BLUE}, lasting, lasting, lasting | {(2, 0): GREEN}]
    return [geotiff(tmp_path / f"site-{date}.tif", paint(ground)) for date, ground in zip(DATES, grounds, strict=True)]
