"""Every kind of still: read as a viewer shows it, or refused by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.sources.image import read_noted

pytest.importorskip("cv2")
pytest.importorskip("simplejpeg")

# What is expected: the size that is shown, and a word of the note; or a word of the refusal.
READ = {
    "whole.jpg": ((96, 64), None),
    "progressive.jpg": ((96, 64), None),
    "grey.jpg": ((96, 64), None),
    "trailer-zeros.jpg": ((96, 64), None),
    "trailer-junk.jpg": ((96, 64), None),
    "motion-photo.jpg": ((96, 64), None),
    "second-picture.jpg": ((96, 64), None),
    "preview-inside.jpg": ((96, 64), None),
    "turned-3.jpg": ((96, 64), None),
    "turned-6.jpg": ((96, 64), None),
    "turned-8.jpg": ((96, 64), None),
    "whole.png": ((96, 64), None),
    "trailer.png": ((96, 64), None),
    "wrong-text-checksum.png": ((96, 64), None),
    "deep.png": ((96, 64), None),
    "deep-12-bit.png": ((96, 64), "12 bits"),
    "deep.tif": ((96, 64), None),
    "unit-float.tif": ((96, 64), None),
    "two-pages.tif": ((96, 64), "2 pages, only page 1 is read"),
    "preview-first.tif": ((96, 64), "2 pages, only page 2 is read"),
}
MEASURED = {"heat.tif": "uint16", "height.tif": "float32", "height-missing.tif": "float32"}
REFUSED = {
    "cut-half.jpg": "cut off",
    "cut-last-byte.jpg": "cut off",
    "cut-behind-preview.jpg": "cut off",
    "zero-tail.jpg": "cut off|damaged",
    "zero-sector.jpg": "damaged",
    "junk-sector.jpg": "cut off|damaged",
    "progressive-hole.jpg": "damaged",
    "long-block.jpg": "damaged",
    "cut.png": "cut off",
    "flipped-bit.png": "damaged",
    "nothing.tif": "holds no number",
    "heic-brand.heic": "HEIC",
    "heic-named.jpg": "HEIC",
    "text.jpg": "not a picture",
    "empty.jpg": "an empty file",
    "page.jpg": "not a picture",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = Path(__file__).with_name("pictures") / "make.py"
    spec = importlib.util.spec_from_file_location("make_pictures", maker)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("pictures")
    module.make(folder)
    return folder


def test_every_still_is_expected(corpus: Path) -> None:
    """What the maker makes and what is judged are the same."""
    assert {path.name for path in corpus.iterdir()} == {*READ, *MEASURED, *REFUSED}


@pytest.mark.parametrize("name", READ)
def test_a_picture_is_read_as_it_is_shown(corpus: Path, name: str) -> None:
    """Red, green, blue and white quarters, from whatever depth, page and turn."""
    size, noted = READ[name]
    frame, note = read_noted(corpus / name)
    assert frame.size == size
    assert (note or "") == "" if noted is None else noted in (note or "")
    quarters = [frame.pixels[top : top + 16, left : left + 16].mean((0, 1)) for top in (8, 40) for left in (16, 64)]
    expected = [(20, 20, 200), (20, 200, 20), (200, 20, 20), (220, 220, 220)]  # in BGR
    if name == "grey.jpg":
        expected = [(red,) * 3 for _, _, red in expected]
    assert np.abs(np.array(quarters) - expected).max() < 9


@pytest.mark.parametrize("name", MEASURED)
def test_measurements_are_stretched_and_that_is_said(corpus: Path, name: str) -> None:
    """A camera of heat does not give a black picture."""
    frame, note = read_noted(corpus / name)
    assert f"one channel of {MEASURED[name]} stretched" in (note or "")
    assert frame.pixels[-1, -1].min() == 255
    assert 90 < frame.pixels[32, 32].mean() < 165
    assert frame.pixels[0, 0].max() == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_is_refused_by_name(corpus: Path, name: str) -> None:
    """In one line that holds the file's name."""
    with pytest.raises(SourceError, match=REFUSED[name]) as caught:
        read_noted(corpus / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("orientation", "size"), [(1, (96, 64)), (6, (64, 96))])
def test_a_phones_picture_is_read_whole_and_turned_once(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    """HEIC keeps its turn in the container; the Exif orientation repeats it and must not turn it again."""
    heif = pytest.importorskip("pillow_heif")
    pillow = pytest.importorskip("PIL.Image")
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48], stored[:32, 48:], stored[32:, :48] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
    exif = pillow.Exif()
    exif[0x0112] = orientation
    heif.from_pillow(pillow.fromarray(stored)).save(tmp_path / "phone.heic", quality=95, exif=exif.tobytes())
    frame, _ = read_noted(tmp_path / "phone.heic")
    assert frame.size == size
    shown = np.rot90(stored, -1) if orientation == 6 else stored
    assert np.abs(frame.pixels[:, :, ::-1].astype(int) - shown).mean() < 4
