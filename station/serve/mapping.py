"""The map's data: tracks and footprints of the archive, small pictures of mosaics, and tiles from files of the user."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import threading
import time
import zlib
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.paths import home
from overflight.station.review import finding_number
from overflight.station.serve.endpoint import Call, File, RefusedError
from overflight.station.serve.shapes import Footprint, MapData, MapFlight, Mosaic, TilesAsked, TileSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.station.archive import ArchivedFlight
    from overflight.station.serve.desk import Desk

MOST_FOOTPRINTS = 400
MOST_TRACK = 2000
MOST_TILE_BYTES = 4 << 20  # of a tile, and of a directory of tiles
MOST_INFLATED_BYTES = 32 << 20
QUERY_S = 5.0  # the table of an .mbtiles file may be a view, whose query ends when it likes
MEDIA = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
REMEMBERED = "tiles.json"
_PM_RASTER = {2: "png", 3: "jpg", 4: "webp"}
_guard = threading.Lock()
_flights: dict[tuple[Path, str, int], MapFlight] = {}  # a flight never changes while its rows keep their numbers


class MapAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One flight of the map, or all."""

    flight: str = ""


def get_map(desk: Desk, call: Call) -> MapData:
    """Return tracks, footprints and mosaics."""
    flights = [one for one in desk.flights() if call.query.flight in {"", one.id, one.name}]
    drawn = tuple(_flight(desk, one) for one in flights)
    mosaics = tuple(
        Mosaic(one.name, f"/api/mosaics/{one.id}.jpg", shape.bounds)
        for one, shape in zip(flights, drawn, strict=True)
        if one.kind == "mosaic" and shape.bounds is not None
    )
    return MapData(drawn, mosaics)


def get_mosaic(desk: Desk, call: Call) -> File:
    """Return a small picture of an orthomosaic."""
    from overflight.station.archive.pictures import shrink

    name = call.path["file"].removesuffix(".jpg")
    flight = next((one for one in desk.flights() if one.id == name and one.kind == "mosaic"), None)
    source = None if flight is None or flight.source_path is None else desk.archive.directory / flight.source_path
    if source is None or not source.is_file():
        raise RefusedError(404, "no-picture", f"mosaic {name[:40]!r}: its file is not where it was")
    sheet = _overview(source)
    return File(shrink(sheet, sheet.shape[1]), "image/jpeg", tag=f"mosaic-{name}")


def post_tiles(desk: Desk, call: Call) -> TileSource:
    """Remember a file of map tiles on this machine."""
    asked: TilesAsked = call.body
    try:
        path = Path(asked.path).expanduser()
        there = path.suffix.lower() in {".mbtiles", ".pmtiles"} and path.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL
        there = False
    if not there:
        raise UsageError(f"{asked.path[:200]}: expected an .mbtiles or .pmtiles file on the station's disk")
    source = describe_tiles(path.resolve())
    with _guard:
        kept = [one for one in remembered() if one != path.resolve()]
        write_atomically(home() / REMEMBERED, msgspec.json.encode([*map(str, kept), str(path.resolve())]))
    return source


def get_tile(desk: Desk, call: Call) -> File:
    """Return one map tile."""
    path = next((one for one in remembered() if tiles_id(one) == call.path["id"]), None)
    if path is None:
        raise RefusedError(404, "unknown", "no such file of tiles")
    z, x, y = (int(call.path[name]) for name in ("z", "x", "y"))
    if not (0 <= z <= 30 and 0 <= x < 1 << z and 0 <= y < 1 << z):
        raise RefusedError(404, "no-tile", f"tile {z}/{x}/{y}: outside the world")
    tile = _mbtile(path, z, x, y) if path.suffix.lower() == ".mbtiles" else _pmtile(path, z, x, y)
    if tile is None:
        raise RefusedError(404, "no-tile", f"tile {z}/{x}/{y}: not in {path.name}")
    return File(tile, MEDIA[describe_tiles(path).format], tag=f"{tiles_id(path)}-{z}-{x}-{y}")


def remembered() -> list[Path]:
    """Return the files of map tiles that are still there."""
    try:
        names = msgspec.json.decode((home() / REMEMBERED).read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError):
        return []
    return [path for name in names if (path := Path(name)).is_file()]


def tile_sources() -> tuple[TileSource, ...]:
    """Return the remembered files; one that cannot be read any more is left out."""
    found = []
    for path in remembered():
        try:
            found.append(describe_tiles(path))
        except OverflightError:
            continue
    return tuple(found)


def tiles_id(path: Path) -> str:
    """Return the name by which the page asks for a file's tiles."""
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]


def describe_tiles(path: Path) -> TileSource:
    """Read what a file of tiles says of itself. Raises UsageError for vector tiles, and for what is no such file."""
    facts = _mb_facts(path) if path.suffix.lower() == ".mbtiles" else _pm_facts(path)
    if facts["format"] not in MEDIA:
        raise UsageError(
            f"{path.name}: tiles of the format {facts['format']}; the page shows raster tiles (png, jpg, webp)"
        )
    form: Literal["png", "jpg", "webp"] = "jpg" if facts["format"] == "jpeg" else facts["format"]
    name = tiles_id(path)
    address = f"/tiles/{name}/{{z}}/{{x}}/{{y}}"
    return TileSource(name, path.stem, address, form, facts["least"], facts["most"], facts["bounds"])


def _mb_facts(path: Path) -> dict[str, Any]:
    """Read an MBTiles 1.3 file's metadata."""
    try:
        with _opened(path) as connection:
            given = dict(connection.execute("SELECT name, substr(value, 1, 1000) FROM metadata LIMIT 100"))
            least, most = connection.execute("SELECT min(zoom_level), max(zoom_level) FROM tiles").fetchone()
            (first,) = connection.execute("SELECT substr(tile_data, 1, 4) FROM tiles LIMIT 1").fetchone() or (b"",)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the error's own text quotes the damaged file
        raise UsageError(f"{path.name}: not an MBTiles file ({error})") from error
    if not (isinstance(least, int) and isinstance(most, int) and isinstance(first, bytes)):
        raise UsageError(f"{path.name}: not an MBTiles file (its table holds no tiles of bytes)")
    if not first:
        raise UsageError(f"{path.name}: has no tiles")
    form = str(given.get("format") or ("png" if first == b"\x89PNG" else "jpg"))
    try:
        west, south, east, north = (float(part) for part in str(given.get("bounds", "")).split(","))
        bounds = (west, south, east, north) if all(map(math.isfinite, (west, south, east, north))) else None
    except ValueError:
        bounds = None
    return {"format": form, "least": least, "most": most, "bounds": bounds}


def _mbtile(path: Path, z: int, x: int, y: int) -> bytes | None:
    """Read a tile; MBTiles counts rows from the south."""
    place = "zoom_level = ? AND tile_column = ? AND tile_row = ?"
    query = f"SELECT tile_data FROM tiles WHERE {place} AND length(tile_data) <= ?"  # noqa: S608 - a constant
    try:
        with _opened(path) as connection:
            found = connection.execute(query, (z, x, (1 << z) - 1 - y, MOST_TILE_BYTES)).fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise OverflightError(f"{path.name}: {error}") from error
    return found[0] if found is not None and isinstance(found[0], bytes) else None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database that may be damaged or hostile: no statement takes longer than ``QUERY_S``."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        end_s = time.monotonic() + QUERY_S
        connection.set_progress_handler(lambda: time.monotonic() > end_s, 10_000)
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        yield connection


def _pm_facts(path: Path) -> dict[str, Any]:
    """Read a PMTiles 3 header through the format's own library."""
    with path.open("rb") as file:
        header = _pm_reader(file).header()
    form = _PM_RASTER.get(int(header["tile_type"].value), "mvt")
    edges = [header[name] / 1e7 for name in ("min_lon_e7", "min_lat_e7", "max_lon_e7", "max_lat_e7")]
    return {
        "format": form,
        "least": header["min_zoom"],
        "most": header["max_zoom"],
        "bounds": (edges[0], edges[1], edges[2], edges[3]),
    }


def _pmtile(path: Path, z: int, x: int, y: int) -> bytes | None:
    with path.open("rb") as file:
        reader = _pm_reader(file)
        try:
            tile = reader.get(z, x, y)
        except Exception as error:  # the library raises what it meets
            raise OverflightError(f"{path.name}: its directory is damaged ({error})") from error
    return None if tile is None else _inflated(tile)


def _inflated(content: bytes) -> bytes:
    """Unpack what is gzip. Raises ValueError beyond ``MOST_INFLATED_BYTES``."""
    if content[:2] != b"\x1f\x8b":
        return content
    inflater = zlib.decompressobj(31)
    whole = inflater.decompress(content, MOST_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {MOST_INFLATED_BYTES} bytes once unpacked")
    return whole


def _pm_reader(file: Any) -> Any:
    """Return the reader of an open PMTiles file. Raises UsageError where the file is none."""
    try:
        from pmtiles.reader import Reader

        def read(start: int, count: int) -> bytes:
            if count > MOST_TILE_BYTES:
                raise ValueError(f"a part of {count} bytes; expected at most {MOST_TILE_BYTES}")
            file.seek(start)
            part = bytes(file.read(count))
            _inflated(part)  # the library unpacks directories without a bound
            return part

        reader = Reader(read)
        reader.header()
    except ImportError as error:
        raise UsageError("reading .pmtiles needs the serve extra; run: pip install 'overflight[serve]'") from error
    except Exception as error:  # the library raises what it meets
        raise UsageError(f"not a PMTiles 3 file ({error})") from error
    return reader


def _flight(desk: Desk, flight: ArchivedFlight) -> MapFlight:
    """Draw a flight, thinned to what a page can show."""
    key = (desk.archive.directory.resolve(), flight.id, flight.first)
    if key in _flights:
        return _flights[key]
    track: list[tuple[float, float]] = []
    prints: list[Footprint] = []
    with desk.archive.read() as connection:
        rows = dict(
            connection.execute(
                "SELECT frame, id FROM rows WHERE id >= ? AND id < ? AND tile = 0",
                (flight.first, flight.first + flight.rows),
            )
        )
    for one in JournalReader(desk.archive.flight_directory(flight.id) / JOURNAL).observations():
        if one.pose is not None:
            track.append((one.pose.lat_deg, one.pose.lon_deg))
        if one.place is not None and len(one.place.footprint) == 4 and one.frame in rows:
            ring = tuple((lat, lon) for lon, lat in one.place.footprint)
            number = finding_number(flight.id, one.frame)
            prints.append(Footprint(rows[one.frame], one.frame, number, ring, one.label))
    points = track + [corner for one in prints for corner in one.ring]
    bounds = None
    if points:
        lats, lons = [lat for lat, _ in points], [lon for _, lon in points]
        bounds = ((min(lats), min(lons)), (max(lats), max(lons)))
    thin_track, thin_prints = _thin(track, MOST_TRACK), _thin(prints, MOST_FOOTPRINTS)
    drawn = MapFlight(flight.id, flight.name, tuple(thin_track), tuple(thin_prints), bounds)
    _flights[key] = drawn
    return drawn


def _thin(items: list[Any], most: int) -> list[Any]:
    step = -(-len(items) // most) or 1
    return items[::step]


def _overview(path: Path) -> Any:
    """Read a mosaic at a coarse step, BGR ``[H, W, 3]``."""
    import numpy as np

    from overflight.runtime.sources.image import opencv
    from overflight.runtime.sources.mosaic import Mosaic as Reader

    mosaic = Reader(path, 2048)
    try:
        width, height = mosaic.size
        scale = min(1.0, 1600 / max(width, height))
        sheet = np.zeros((max(1, round(height * scale)), max(1, round(width * scale)), 3), np.uint8)
        for top in range(0, height, 2048):
            for left in range(0, width, 2048):
                bottom, right = min(top + 2048, height), min(left + 2048, width)
                pixels, _ = mosaic.region(top, left, bottom, right)
                y, x, y1, x1 = (round(edge * scale) for edge in (top, left, bottom, right))
                if y1 > y and x1 > x:
                    sheet[y:y1, x:x1] = opencv().resize(pixels, (x1 - x, y1 - y), interpolation=3)
        return np.ascontiguousarray(sheet[:, :, ::-1])
    finally:
        mosaic.close()
