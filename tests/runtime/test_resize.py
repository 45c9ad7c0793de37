"""The resize contract: Pillow's answer, for any picture, filter and fit."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from overflight.runtime.bundle import Filter, Resize
from overflight.runtime.errors import SourceError
from overflight.runtime.overflight import embed
from overflight.runtime.resize import Resizer

Image = pytest.importorskip("PIL.Image")
FILTERS: dict[Filter, int] = {"bicubic": 3, "bilinear": 2, "lanczos": 1, "box": 4}


def pillow(pixels: NDArray[np.uint8], width: int, height: int, kind: Filter) -> NDArray[np.uint8]:
    """Resize width first, as every Pillow before 13 did; from 13 on it picks the cheaper order by itself."""
    across = Image.fromarray(pixels).resize((width, len(pixels)), FILTERS[kind])
    return np.asarray(across.resize((width, height), FILTERS[kind]))


def ours(pixels: NDArray[np.uint8], contract: Resize) -> NDArray[np.uint8]:
    out = np.empty((contract.side, contract.side, 3), np.uint8)
    Resizer(contract).resize(pixels, out)
    return out


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(("height", "width"), [(720, 1280), (300, 200), (64, 64), (40, 50), (1, 1), (5, 900)])
def test_squash_equals_pillow(kind: Filter, height: int, width: int) -> None:
    """Even white noise, the hardest picture for a filter, differs from Pillow by one grey level at most."""
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    difference = np.abs(ours(noise, Resize(64, kind, "squash")).astype(int) - pillow(noise, 64, 64, kind).astype(int))
    assert difference.max() <= (1 if kind != "lanczos" else 2)
    assert difference.mean() <= 0.15


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_any_size_equals_pillow(height: int, width: int, seed: int) -> None:
    """No size of picture leaves the contract."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    got = ours(noise, Resize(32, "bicubic", "squash")).astype(int)
    assert np.abs(got - pillow(noise, 32, 32, "bicubic")).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (300, 200), (224, 224), (225, 1001)])
def test_crop_is_the_middle_of_the_scaled_picture(height: int, width: int) -> None:
    """CLIP's fit: the shorter edge becomes the side, the longer is cut evenly."""
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    short = min(height, width)
    scaled = pillow(noise, int(48 * width / short), int(48 * height / short), "bicubic")
    top, left = (scaled.shape[0] - 48) // 2, (scaled.shape[1] - 48) // 2
    expected = scaled[top : top + 48, left : left + 48].astype(int)
    assert np.abs(ours(noise, Resize(48, "bicubic", "crop")) - expected).max() <= 1


def test_letterbox_keeps_the_shape_and_pads_with_grey() -> None:
    """A wide picture gets grey above and below, and nothing is cut."""
    white = np.full((100, 200, 3), 255, np.uint8)
    got = ours(white, Resize(64, "bicubic", "letterbox"))
    assert (got[:16] == 127).all()
    assert (got[48:] == 127).all()
    assert (got[16:48] == 255).all()


@pytest.mark.parametrize(("width", "even", "down"), [(71, 12, 11), (73, 12, 12), (75, 14, 13)])
def test_an_odd_excess_is_cut_as_the_contract_says(width: int, even: int, down: int) -> None:
    """torchvision rounds half a pixel to the even number, transformers rounds it down."""
    noise = np.random.default_rng(2).integers(0, 256, (48, width, 3), np.uint8)
    for rounding, left in (("even", even), ("down", down)):
        got = ours(
            noise, msgspec.convert({"side": 48, "filter": "bicubic", "fit": "crop", "rounding": rounding}, Resize)
        )
        assert np.array_equal(got, noise[:, left : left + 48])


def test_a_larger_edge_is_cut_to_the_side_in_both_directions() -> None:
    """Resize to 60, crop 48."""
    noise = np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)
    assert np.array_equal(ours(noise, Resize(48, "bicubic", "crop", edge=60)), noise[6:54, 16:64])


def test_letterbox_fills_with_the_contracts_level() -> None:
    """open_clip fills with black."""
    white = np.full((100, 200, 3), 255, np.uint8)
    assert (ours(white, Resize(64, "bicubic", "letterbox", fill=0))[:16] == 0).all()


def test_bgr_becomes_rgb() -> None:
    """The channel order of the source is undone by the resize."""
    noise = np.random.default_rng(2).integers(0, 256, (90, 160, 3), np.uint8)
    contract = Resize(32, "bicubic", "squash")
    out = np.empty((32, 32, 3), np.uint8)
    Resizer(contract).resize(np.ascontiguousarray(noise[:, :, ::-1]), out, "bgr")
    np.testing.assert_array_equal(out, ours(noise, contract))


def test_without_opencv_the_answer_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking the colours apart by NumPy, of a picture cut out of a larger one too."""
    noise = np.random.default_rng(3).integers(0, 256, (400, 700, 3), np.uint8)[7:391, 13:690]
    contract = Resize(48, "bicubic", "squash")
    expected = ours(noise, contract)
    monkeypatch.setitem(sys.modules, "cv2", None)
    np.testing.assert_array_equal(ours(noise, contract), expected)


def test_a_changed_size_in_flight_is_a_new_plan() -> None:
    """A camera that changes its resolution is resized rightly from that frame on."""
    resizer = Resizer(Resize(32, "bicubic", "squash"))
    out = np.empty((32, 32, 3), np.uint8)
    for height, width in [(90, 160), (45, 80), (90, 160)]:
        noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        resizer.resize(noise, out)
        assert np.abs(out.astype(int) - pillow(noise, 32, 32, "bicubic")).max() <= 1


@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 4), (0, 10, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    """A frame of another shape is named, not guessed at."""
    with pytest.raises(SourceError, match=r"expected uint8 \[height, width, 3\]"):
        ours(np.zeros(shape, np.uint8), Resize(32, "bicubic", "squash"))


def test_a_single_call_gives_the_same_pixels_on_any_number_of_blas_threads() -> None:
    """A fifth of the size and few levels: many pixels lie between two levels, where the order of a sum decides."""
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(resize=Resize(140, "bicubic", "squash")))
    engine: Any = SimpleNamespace(width=140 * 140 * 3, embed=lambda batch: batch.reshape(len(batch), -1))
    made = np.random.default_rng(1)
    pictures = [made.integers(0, 4, (700, 700, 3), np.uint8) for _ in range(8)]
    with threadpool_limits(1, "blas"):
        alone = embed(engine, bundle, pictures)
    with threadpool_limits(2, "blas"):
        np.testing.assert_array_equal(embed(engine, bundle, pictures), alone)
