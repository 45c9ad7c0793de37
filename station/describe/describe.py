"""Describing: from a picture, a mosaic or a flight to its fields and its composition."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.geofiles.layers import iso
from overflight.station.describe.composition import compose
from overflight.station.describe.fields import (
    MARGIN,
    Group,
    group_field,
    groups_of,
    independent_labels,
    single_field,
)
from overflight.station.describe.quality import Measures, measure, quality_fields
from overflight.station.describe.record import SCHEMA, CoverShare, Description, Field, Ground, Hashes
from overflight.station.ground.picture import GroundSample, open_picture
from overflight.station.ground.tiles import Tile, filled, read_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Manifest
    from overflight.runtime.records import Observation
    from overflight.station.ground.picture import GroundPicture
    from overflight.station.ground.tiles import Embed

TELEMETRY_ERROR = 0.1  # share by which a flight's ground sample distance may be wrong, over flat ground
_MEASURED_PICTURES = 40


@dataclass(frozen=True)
class Described:
    """A description with the tiles behind it: where each lies, its label, and its score."""

    description: Description
    tiles: tuple[Tile, ...]
    labels: tuple[str | None, ...]
    scores: tuple[float, ...]


def describe_picture(
    path: Path,
    bank: LabelBank,
    manifest: Manifest,
    embed: Embed,
    *,
    gsd_m: float | None = None,
    tile_px: int | None = None,
    margin: float = MARGIN,
) -> Described:
    """Describe a still or a mosaic. Raises SourceError for what cannot be read."""
    picture = open_picture(path, gsd_m=gsd_m)
    try:
        overview, known = picture.overview()
        tiles = read_tiles(picture, embed, manifest.resize.side, tile_px)
        whole = embed([filled(overview, known)])[0]
        measures = measure_picture(picture, overview, known)
    finally:
        picture.close()
    hashes = Hashes(manifest.tower, bank.sha256, picture.sha256)
    short = (hashes.model[:16], hashes.bank[:16], hashes.source[:16])
    cover, labels, scores = _cover(
        bank, margin, tiles.embeddings, [tile.area_m2 for tile in tiles.tiles], picture.ground, short
    )
    description = Description(
        schema=SCHEMA,
        kind="picture" if picture.georeference is None else "mosaic",
        source=picture.name,
        model=manifest.name,
        bank=bank.header.name,
        hashes=hashes,
        width_px=picture.width,
        height_px=picture.height,
        frames=1,
        taken_utc=iso(picture.taken_utc_ns),
        ground=_ground(picture.ground),
        tiles=len(tiles.tiles),
        tile_px=tiles.tiles[0].width,
        missing_tiles=tiles.missing,
        fields=(*_label_fields(bank, margin, whole, short), *quality_fields(measures, picture.ground, short)),
        cover=cover,
        notes=picture.notes,
    )
    return Described(description, tiles.tiles, labels, scores)


def describe_flight(flight: Path, bank: LabelBank, manifest: Manifest, *, margin: float = MARGIN) -> Described:
    """Describe a recorded flight from its embeddings; its tiles where it has them, else its frames.

    Raises UsageError where the flight has no embeddings, or those of another tower.
    """
    from overflight.runtime.flight.directory import JOURNAL, read_record

    record = read_record(flight)
    wholes, parts, tiles, seen = recorded(flight, manifest.width)
    digest = hashlib.sha256((flight / JOURNAL).read_bytes()).hexdigest()
    hashes = Hashes(manifest.tower, bank.sha256, digest)
    short = (hashes.model[:16], hashes.bank[:16], hashes.source[:16])
    ground = _flight_ground(seen)
    covered_m2, notes = _covered_m2(flight)
    areas = [None if covered_m2 is None else covered_m2 / len(parts)] * len(parts)
    cover, labels, scores = _cover(bank, margin, parts, areas, ground, short)
    mean = wholes.mean(axis=0)
    fields = _label_fields(bank, margin, np.asarray(mean / np.linalg.norm(mean), np.float32), short)
    measured = _measured_pictures(flight)
    description = Description(
        schema=SCHEMA,
        kind="flight",
        source=record.source,
        model=manifest.name,
        bank=bank.header.name,
        hashes=hashes,
        width_px=None,
        height_px=None,
        frames=len(wholes),
        taken_utc=iso(next((utc_ns for one in seen if (utc_ns := one.utc_ns) is not None), None)),
        ground=_ground(ground),
        tiles=len(parts),
        tile_px=None,
        missing_tiles=0,
        fields=(*fields, *([] if measured is None else quality_fields(measured, ground, short))),
        cover=cover,
        notes=tuple(notes if measured is not None else [*notes, "no small pictures are left: quality not measured"]),
    )
    return Described(description, tiles, labels, scores)


def measure_picture(picture: GroundPicture, overview: NDArray[np.uint8], known: NDArray[np.bool_]) -> Measures:
    """Measure a picture on its overview, and its sharpness at full resolution in its middle."""
    from overflight.station.describe.quality import SIDE_PX, blur_index, luminance

    top, left = max(0, (picture.height - SIDE_PX) // 2), max(0, (picture.width - SIDE_PX) // 2)
    bottom, right = min(picture.height, top + SIDE_PX), min(picture.width, left + SIDE_PX)
    pixels, mask = picture.read(top, left, bottom, right)
    grey = luminance(filled(pixels, mask))
    sharpness = blur_index(grey) if mask.mean() > 0.5 and min(grey.shape) > 16 else None
    return measure(overview, known)._replace(blur=sharpness)


def _label_fields(
    bank: LabelBank, margin: float, embedding: NDArray[np.float32], hashes: tuple[str, str, str]
) -> list[Field]:
    fields = [group_field(name, group.judge(embedding), hashes) for name, group in groups_of(bank, margin).items()]
    threshold = bank.header.threshold
    fields += [
        single_field(name, group.judge(embedding), hashes, threshold)
        for name, group in independent_labels(bank, margin)
    ]
    return fields


def cover_group(bank: LabelBank, margin: float = MARGIN) -> Group:
    """Return the group by which tiles are labelled: "cover", or else the bank's largest exclusive group."""
    groups = groups_of(bank, margin)
    if "cover" in groups:
        return groups["cover"]
    if groups:
        return max(groups.values(), key=lambda group: len(group.names))
    return Group(bank, np.flatnonzero([not label.background for label in bank.header.labels]), margin)


def _cover(
    bank: LabelBank,
    margin: float,
    embeddings: NDArray[np.float32],
    areas_m2: Sequence[float | None],
    ground: GroundSample | None,
    hashes: tuple[str, str, str],
) -> tuple[tuple[CoverShare, ...], tuple[str | None, ...], tuple[float, ...]]:
    group = cover_group(bank, margin)
    judged = [group.judge(embedding) for embedding in embeddings]
    labels = tuple(one.label for one in judged)
    shares = compose(labels, areas_m2, None if ground is None else ground.error, hashes)
    return shares, labels, tuple(one.score for one in judged)


def recorded(
    flight: Path, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[Tile, ...], list[Observation]]:
    """Return the embeddings of frames, those of tiles (or of frames again), the tiles' ground, and the observations."""
    from overflight.runtime.flight.directory import JOURNAL
    from overflight.runtime.flight.journal_reader import JournalReader
    from overflight.station.archive.places import place_of, tile_places

    wholes, parts, tiles, seen = [], [], [], []
    for observation, embedding, tile_embeddings in JournalReader(flight / JOURNAL).frames():
        if embedding is None:
            continue
        if len(embedding) != width:
            raise UsageError(
                f"{flight}: embeddings of {len(embedding)} numbers, the bundle's have {width}; name its own"
            )
        wholes.append(embedding)
        seen.append(observation)
        grid = observation.tiles
        count = (grid.rows, grid.columns) if grid is not None and tile_embeddings is not None else (1, 1)
        parts += [embedding] if tile_embeddings is None else list(tile_embeddings)
        for number, place in enumerate(tile_places(place_of(observation), *count)):
            row, column = divmod(number, count[1])
            ring = () if place is None or place.stale else place.footprint
            tiles.append(Tile(row, column, 0, 0, 0, 0, 1.0, ring, None if place is None else place.gsd_m))
    if not wholes:
        raise UsageError(f"{flight}: no embeddings in its journal; fly the source again: overflight run SOURCE")
    return np.array(wholes, np.float32), np.array(parts, np.float32), tuple(tiles), seen


def _flight_ground(seen: Sequence[Observation]) -> GroundSample | None:
    gsds_m = [one.place.gsd_m for one in seen if one.place is not None and one.place.gsd_m is not None]
    return GroundSample(float(np.median(gsds_m)), TELEMETRY_ERROR, "telemetry") if gsds_m else None


def _covered_m2(flight: Path) -> tuple[float | None, list[str]]:
    """Return the union of the footprints: the sum of overlapping frames would count ground twice."""
    from overflight.station.coverage import cover

    try:
        return cover([flight]).covered_m2, []
    except OverflightError as error:
        return None, [f"no areas: {error}"]


def _measured_pictures(flight: Path) -> Measures | None:
    """Measure the small pictures that the flight kept, and return the median of each measure."""
    from overflight.runtime.flight.directory import JOURNAL
    from overflight.runtime.flight.journal_reader import read_pictures
    from overflight.runtime.sources.image import decode_still

    jpegs = [picture.jpeg for picture in read_pictures(flight / JOURNAL)]
    step = max(1, len(jpegs) // _MEASURED_PICTURES)
    found = []
    for jpeg in jpegs[::step]:
        pixels = np.ascontiguousarray(decode_still(jpeg, "a small picture")[:, :, ::-1])
        found.append(measure(pixels, np.ones(pixels.shape[:2], np.bool_)))
    if not found:
        return None
    blurs = [one.blur for one in found if one.blur is not None]
    numbers = np.median([[one.haze, one.exposure, one.clipped, one.bright_smooth] for one in found], axis=0)
    return Measures(float(np.median(blurs)) if blurs else None, *map(float, numbers))


def _ground(ground: GroundSample | None) -> Ground | None:
    return None if ground is None else msgspec.convert(msgspec.structs.asdict(ground), Ground)
