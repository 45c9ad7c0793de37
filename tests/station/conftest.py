"""Flights made up for the station's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from overflight.runtime.records import SCHEMA, Costs, FlightRecord, Observation, Score, encode_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle
    from overflight.station.archive import Archive
    from overflight.station.ground import GroundPicture

LABELS = ("meadow", "dense forest & fen", "</script><script>alert('label')</script>", "water")
FRAME_NS = 40_000_000


def _unchanged(seen: Observation) -> Observation:
    return seen


@pytest.fixture
def make_flight(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of flight directories: one observation per answer, 25 a second of a recording.

    ``change`` may alter each observation; keywords alter fields of flight.json.
    """

    def make(
        answers: list[str | None], change: Callable[[Observation], Observation] = _unchanged, **record: object
    ) -> Path:
        flight = tmp_path / "flight"
        flight.mkdir()
        said = msgspec.structs.replace(_record(len(answers)), **record)
        (flight / "flight.json").write_bytes(msgspec.json.encode(said))
        with (flight / "observations.jsonl").open("wb") as file:
            for frame, answer in enumerate(answers):
                file.write(encode_line(change(_observation(frame, answer))))
        return flight

    return make


def _record(observed: int) -> FlightRecord:
    return FlightRecord(
        schema=SCHEMA,
        source="recordings/first.mp4",
        host="station",
        versions={"overflight": "0.1.0", "python": "3.11.2"},
        model="small",
        bundle="a" * 64,
        engine="onnxruntime-cpu fp32",
        engine_sha256="b" * 64,
        bank="scenes",
        bank_sha256="c" * 64,
        labels=LABELS,
        started_utc_ns=1_790_000_000_000_000_000,
        ended_utc_ns=1_790_000_030_000_000_000,
        ended_because="source ended",
        observed=observed,
    )


def _observation(frame: int, answer: str | None) -> Observation:
    """Score the answer 0.5 to 0.995, growing with the frame's number."""
    sure = 0.5 + frame % 100 / 200
    return Observation(
        frame=frame,
        captured_ns=frame * 20_000_000,
        age_ns=10_000_000 + frame % 7 * 1_000_000,
        label=answer,
        scores=(Score(answer or "sky", 0.2, 0.01, sure), Score("water", 0.1, 0.001, (1 - sure) / 2)),
        costs=Costs(resize_ns=1_000_000, engine_ns=8_000_000, match_ns=50_000),
        bank="c" * 16,
        engine="b" * 16,
        media_ns=frame * FRAME_NS,
    )


RED, GREEN, BLUE = (250, 30, 30), (30, 250, 30), (30, 30, 250)


def write_stills(folder: Path, colours: list[tuple[int, int, int]]) -> Path:
    """Write a still for each RGB colour, with noise so that no two are the same."""
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(colours))
    for number, colour in enumerate(colours):
        pixels = np.clip(np.array(colour) + random.integers(-8, 9, (48, 64, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03}.png"), pixels[:, :, ::-1])
    return folder


@pytest.fixture
def fly_over(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that flies over stills of the given colours and returns the flight directory."""
    pytest.importorskip("onnxruntime")
    from overflight.runtime import Overflight
    from overflight.runtime.flight.run import fly

    def make(name: str, colours: list[tuple[int, int, int]]) -> Path:
        stills = write_stills(tmp_path / "sources" / name, colours)
        with Overflight.load(colour_bundle, colour_bank) as overflight:
            fly(overflight, str(stills), tmp_path / "flights" / name)
        return tmp_path / "flights" / name

    return make


@pytest.fixture
def placed() -> Callable[..., Path]:
    """Return a function that gives each frame of a flight the next square of ground to the east."""
    import sqlite3

    from overflight.runtime.pose.footprint import Place

    def give(flight: Path, *, lon_deg: float = 8.5) -> Path:
        with sqlite3.connect(flight / "journal.sqlite") as connection:
            for row, record in connection.execute("SELECT id, record FROM observations ORDER BY id").fetchall():
                west = lon_deg + 1e-4 * row
                ring = ((west, 47.0), (west + 1e-4, 47.0), (west + 1e-4, 47.0001), (west, 47.0001))
                place = Place(47.00005, west + 5e-5, 3.0, ring, gsd_m=0.1)
                seen = msgspec.structs.replace(msgspec.json.decode(record, type=Observation), place=place)
                connection.execute("UPDATE observations SET record = ? WHERE id = ?", (msgspec.json.encode(seen), row))
        return flight

    return give


@pytest.fixture
def archive(fly_over: Callable[..., Path], tmp_path: Path) -> Archive:
    """Return an archive of two flights: red, green and green, then blue and red."""
    from overflight.station.archive import Archive

    made = Archive(tmp_path / "archive")
    made.add(fly_over("first", [RED, GREEN, GREEN]))
    made.add(fly_over("second", [BLUE, RED]))
    return made


@pytest.fixture
def geotiff() -> Callable[..., Path]:
    """Return a writer of GeoTIFFs north up, in one of the systems that drones' products come in."""
    tifffile = pytest.importorskip("tifffile")

    def write(
        path: Path,
        pixels: NDArray[Any],
        epsg: int = 32611,
        gsd: float = 0.5,
        at: tuple[float, float] = (256_000.0, 4_107_000.0),
        nodata: str | None = None,
        **more: Any,
    ) -> Path:
        degrees = epsg == 4326
        keys = [1, 1, 0, 3, 1024, 0, 1, 2 if degrees else 1, 1025, 0, 1, 1, 2048 if degrees else 3072, 0, 1, epsg]
        tags: list[tuple[int, str, int, Any, bool]] = [
            (33550, "d", 3, (gsd, gsd, 0.0), True),
            (33922, "d", 6, (0.0, 0.0, 0.0, *at, 0.0), True),
            (34735, "H", len(keys), tuple(keys), True),
        ]
        if nodata is not None:
            tags.append((42113, "s", 0, nodata, True))
        tifffile.imwrite(path, pixels, extratags=tags, photometric="rgb", **more)
        return path

    return write


@pytest.fixture
def opened() -> Iterator[Callable[..., GroundPicture]]:
    """Return a function that opens a picture, which is closed after the test."""
    from overflight.station.ground import open_picture

    pictures: list[GroundPicture] = []

    def open_one(path: Path, **given: Any) -> GroundPicture:
        pictures.append(open_picture(path, **given))
        return pictures[-1]

    yield open_one
    for picture in pictures:
        picture.close()
