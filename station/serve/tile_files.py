"""Map tiles from the user's own files: raster MBTiles and PMTiles, remembered on this machine."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
import zlib
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.paths import home
from overflight.station.serve.endpoint import Call, File, NotKeptError, RefusedError
from overflight.station.serve.shapes import TilesAsked, TileSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.station.serve.desk import Desk

MEDIA = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
REMEMBERED = "tiles.json"
MOST_TILE_BYTES = 4 << 20  # of a tile, and of a directory of tiles
MOST_INFLATED_BYTES = 32 << 20
QUERY_S = 5.0  # the table of an .mbtiles file may be a view, whose query ends when it likes
MOST_ZOOM = 30
_PM_RASTER = {2: "png", 3: "jpg", 4: "webp"}
_guard = threading.Lock()


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
    if not (0 <= z <= MOST_ZOOM and 0 <= x < 1 << z and 0 <= y < 1 << z):
        raise NotKeptError("no-tile", f"tile {z}/{x}/{y}: outside the world")
    tile = _mbtile(path, z, x, y) if path.suffix.lower() == ".mbtiles" else _pmtile(path, z, x, y)
    if tile is None:
        raise NotKeptError("no-tile", f"tile {z}/{x}/{y}: not in {path.name}")
    return File(tile, MEDIA[describe_tiles(path).format], tag=f"{tiles_id(path)}-{z}-{x}-{y}")


def remembered() -> list[Path]:
    """Return the files of map tiles that are still there."""
    return [path for path in _names() if path.is_file()]


def _names() -> list[Path]:
    try:
        return [Path(name) for name in msgspec.json.decode((home() / REMEMBERED).read_bytes(), type=list[str])]
    except (OSError, msgspec.DecodeError):
        return []


def tile_sources() -> tuple[tuple[TileSource, ...], tuple[str, ...]]:
    """Return the remembered files, and for each that cannot be read any more its name and the reason."""
    found: list[TileSource] = []
    unread: list[str] = []
    for path in _names():
        try:
            found.append(describe_tiles(path))
        except OverflightError as error:
            unread.append(str(error))
    return tuple(found), tuple(unread)


def tiles_id(path: Path) -> str:
    """Return the name by which the page asks for a file's tiles."""
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]


def describe_tiles(path: Path) -> TileSource:
    """Read what a file of tiles says of itself. Raises UsageError for vector tiles, and for what is no such file."""
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror}") from error
    return _described(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=32)
def _described(path: Path, _size: int, _changed_ns: int) -> TileSource:
    """Describe a file once for each of its states: the zooms of a file of many gigabytes take seconds to look up."""
    try:
        facts = _mb_facts(path) if path.suffix.lower() == ".mbtiles" else _pm_facts(path)
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror or error}") from error
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
            least, most = _zooms(given, connection)
            (first,) = connection.execute("SELECT substr(tile_data, 1, 4) FROM tiles LIMIT 1").fetchone() or (b"",)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the error's own text quotes the damaged file
        raise UsageError(f"{path.name}: not an MBTiles file ({error})") from error
    if not (isinstance(least, int) and isinstance(most, int) and isinstance(first, bytes)):
        raise UsageError(f"{path.name}: not an MBTiles file (its table holds no tiles of bytes)")
    if not first:
        raise UsageError(f"{path.name}: has no tiles")
    form = str(given.get("format") or ("png" if first == b"\x89PNG" else "jpg"))
    return {"format": form, "least": least, "most": most, "bounds": _bounds(str(given.get("bounds", "")).split(","))}


def _zooms(given: dict[Any, Any], connection: sqlite3.Connection) -> tuple[Any, Any]:
    """Return the zooms that the file names, else those of its tiles, which takes long where there are many."""
    named = [str(given.get(name, "")) for name in ("minzoom", "maxzoom")]
    if all(one.isdecimal() and len(one) < 3 for one in named):
        return int(named[0]), int(named[1])
    least, most = connection.execute("SELECT min(zoom_level), max(zoom_level) FROM tiles").fetchone()
    return least, most


def _bounds(edges: list[Any]) -> tuple[float, float, float, float] | None:
    """Return west, south, east and north, None where they are none: the page then asks for tiles everywhere."""
    try:
        west, south, east, north = (float(edge) for edge in edges)
    except ValueError:
        return None
    return (west, south, east, north) if -180 <= west < east <= 180 and -90 <= south < north <= 90 else None


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
    return {"format": form, "least": header["min_zoom"], "most": header["max_zoom"], "bounds": _bounds(edges)}


def _pmtile(path: Path, z: int, x: int, y: int) -> bytes | None:
    with path.open("rb") as file:
        reader = _pm_reader(file)
        try:
            tile = reader.get(z, x, y)
            return None if tile is None else _inflated(tile)
        except Exception as error:  # the library raises what it meets
            raise OverflightError(f"{path.name}: its directory or this tile is damaged ({error})") from error


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
        raise UsageError(f"{Path(file.name).name}: not a PMTiles 3 file ({error})") from error
    return reader
