"""A folder of pictures, and a way to embed it with the bundle that knows the mean colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from overflight.station.bulk import BulkOptions, BulkStore, embed_sources
from overflight.station.bulk.rows import pyarrow
from overflight.station.bulk.run import BulkProgress

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle


@pytest.fixture
def write_picture() -> Callable[..., Path]:
    """Return a writer of pictures of one colour, RGB."""
    cv2 = pytest.importorskip("cv2")

    def write(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, np.full((*size, 3), colour[::-1], np.uint8))[1].tobytes())
        return path

    return write


@pytest.fixture
def write_mosaic() -> Callable[..., Path]:
    """Return a writer of tiled GeoTIFFs of noise, 0.1 m a pixel."""
    tifffile = pytest.importorskip("tifffile")

    def write(path: Path, side_px: int = 256, epsg: int | None = 32611) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), np.uint8)
        keys = (1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg or 0, 3076, 0, 1, 9001)
        tags = [
            (33550, "d", 3, (0.1, 0.1, 0.0), True),
            (33922, "d", 6, (0.0, 0.0, 0.0, 255_948.1, 4_110_511.2, 0.0), True),
            (34735, "H", len(keys), keys, True),
        ]
        tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", extratags=tags if epsg else tags[:2])
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path, write_picture: Callable[..., Path]) -> Path:
    """Return a folder of nine pictures of different colours, in a subfolder too."""
    folder = tmp_path / "pictures"
    for number in range(9):
        name = f"sub/{number}.png" if number > 5 else f"{number}.png"
        write_picture(folder / name, (28 * number, 255 - 20 * number, 90))
    return folder


@pytest.fixture
def bulk(colour_bundle: Bundle, tmp_path: Path) -> Callable[..., BulkProgress]:
    """Return a function that embeds sources into ``tmp_path / name`` with one worker."""
    pytest.importorskip("pyarrow", reason="the store is Parquet")

    def run(*sources: str | Path, name: str = "store", **options: Any) -> BulkProgress:
        given = {"bundle": colour_bundle.directory, "workers": 1, "shard_rows": 4, **options}
        return embed_sources([str(source) for source in sources], tmp_path / name, BulkOptions(**given))

    return run


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a reader of all rows of a store, in order."""

    def read(name: str = "store") -> list[dict[str, Any]]:
        store = BulkStore(tmp_path / name)
        paths = [store.parquet_path(shard.number) for shard in store.shards()]
        return [row for path in paths for row in pyarrow().parquet.read_table(path).to_pylist()]

    return read


@pytest.fixture
def files_of(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Return a reader of the bytes of every Parquet file of a store."""

    def read(name: str = "store") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((tmp_path / name / "rows").glob("*.parquet"))}

    return read


@pytest.fixture
def bundle_with_bank(tmp_path: Path, colour_bundle: Bundle, colour_bank: Any) -> Bundle:
    """Return the colour bundle with its bank inside."""
    import shutil

    from overflight.runtime.bundle import seal

    folder = tmp_path / "bundle"
    shutil.copytree(colour_bundle.directory, folder)
    (folder / "labels").mkdir()
    (folder / "labels" / "colours.safetensors").write_bytes(colour_bank.raw)
    return seal(folder, colour_bundle.manifest)
