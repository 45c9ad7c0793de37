"""What the page and the server say to each other; the OpenAPI description is made from these.

Times are nanoseconds since 1970 in UTC, places WGS-84 degrees, boxes shares of a picture from its top left.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(min_length=1, max_length=300)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Row = Annotated[int, Meta(ge=1, le=2**53)]
Point = tuple[float, float]
MOST_CHOICES = 500


class Problem(msgspec.Struct, frozen=True):
    """Why a request was refused, in one line, and a short code for programs."""

    error: str
    code: str


class FlightInfo(msgspec.Struct, frozen=True):
    """A flight of the archive; ``searchable`` where this server's model embedded it."""

    id: str
    name: str
    kind: str
    model: str
    frames: int
    rows: int
    unindexed: int
    searchable: bool
    began_utc_ns: int | None
    ended_utc_ns: int | None


class ArchiveInfo(msgspec.Struct, frozen=True):
    """The archive as a whole; ``unindexed`` counts frames without an embedding."""

    name: str
    flights: int
    rows: int
    unindexed: int


class BankInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A label bank that can be used here. ``sign`` is the command that signs it, where it has no signature yet.

    ``wants_signature`` where this machine trusts keys, so that its aircraft probably do too.
    """

    id: str
    name: str
    sha256: str
    labels: tuple[str, ...]
    address: str
    signed: bool = False
    sign: str | None = None
    wants_signature: bool = False


class AircraftInfo(msgspec.Struct, frozen=True):
    """An aircraft that takes label banks over its health link."""

    id: str
    name: str


class TileSource(msgspec.Struct, frozen=True):
    """A file of map tiles; ``address`` is a template, ``bounds`` west, south, east, north."""

    id: str
    name: str
    address: str
    format: Literal["png", "jpg", "webp"]
    min_zoom: int
    max_zoom: int
    bounds: tuple[float, float, float, float] | None


class State(msgspec.Struct, frozen=True):
    """What this server has; the page shows only what is possible.

    ``banks_unread`` and ``tiles_unread`` name the label banks and remembered map files that cannot be read, and why.
    """

    version: str
    archive: ArchiveInfo | None
    model: str | None
    flights: tuple[FlightInfo, ...]
    labels: tuple[str, ...]
    banks: tuple[BankInfo, ...]
    banks_unread: tuple[str, ...]
    aircraft: tuple[AircraftInfo, ...]
    tiles: tuple[TileSource, ...]
    tiles_unread: tuple[str, ...]
    upload_bytes: int


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The token of this server, given once for a cookie."""

    token: Annotated[str, Meta(min_length=1, max_length=512)]


class Done(msgspec.Struct, frozen=True):
    """It was done."""

    done: bool = True


class Review(msgspec.Struct, frozen=True):
    """The newest decision of one reviewer."""

    reviewer: str
    state: str
    utc_ns: int
    comment: str


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the archive as people see it: a frame (``tile`` 0) or a tile, what was searched and decided of it.

    ``box`` is the tile in the frame's picture (x, y, width, height). ``percentile`` and ``background`` are percent:
    see docs/archive.md. ``footprint`` is the ground, (lon, lat) corners. ``state`` is the reviewers' decision.
    """

    row: int
    number: str
    flight: str
    flight_name: str
    frame: int
    tile: int
    label: str | None = None
    name: str | None = None
    score: float | None = None
    cosine: float | None = None
    percentile: float | None = None
    background: float | None = None
    utc_ns: int | None = None
    media_ns: int | None = None
    lat_deg: float | None = None
    lon_deg: float | None = None
    error_m: float | None = None
    height_m: float | None = None
    box: tuple[float, float, float, float] | None = None
    footprint: tuple[Point, ...] = ()
    grouped: tuple[int, ...] = ()
    state: str | None = None
    reviews: tuple[Review, ...] = ()


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture to look for: a row of the archive or an upload, or the ``region`` of one (x, y, width, height)."""

    row: Row | None = None
    upload: str | None = None
    region: tuple[Share, Share, Share, Share] | None = None


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search; ``filters`` are written as on the command line: after, before, near, inside, height, flight, label…"""

    texts: Annotated[tuple[Text, ...], Meta(max_length=20)] = ()
    unwanted: Annotated[tuple[Text, ...], Meta(max_length=20)] = msgspec.field(default=(), name="not")
    like: Annotated[tuple[Example, ...], Meta(max_length=20)] = ()
    unlike: Annotated[tuple[Name, ...], Meta(max_length=20)] = ()
    filters: Annotated[dict[str, Annotated[str, Meta(max_length=2000)]], Meta(max_length=12)] = {}
    page: Annotated[int, Meta(ge=1, le=1000)] = 1
    most: Annotated[int, Meta(ge=1, le=200)] = 48
    rank: bool = False
    false_alarm: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.05


class Answer(msgspec.Struct, frozen=True):
    """The answer of a search; no ``hits`` means "not found", and ``best`` are the nearest whatever the cut-off."""

    hits: tuple[Seen, ...]
    best: tuple[Seen, ...]
    searched: int
    unknown: int
    unindexed: int
    cutoff: float | None
    false_alarm: float | None
    held_out: int
    translated: dict[str, str]


class FindingsAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which findings, and which part of the list."""

    flight: Annotated[str, Meta(max_length=128)] = ""
    label: Annotated[str, Meta(max_length=300)] = ""
    state: Literal["", "none", "confirmed", "rejected", "unsure", "disputed"] = ""
    offset: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 250


class FindingsPage(msgspec.Struct, frozen=True):
    """A part of the findings, and how many there are."""

    total: int
    items: tuple[Seen, ...]


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reviewer's decision about a finding."""

    state: Literal["confirmed", "rejected", "unsure"]
    reviewer: Name
    comment: Annotated[str, Meta(max_length=2000)] = ""
    label: Annotated[str, Meta(max_length=300)] | None = None


class Merged(msgspec.Struct, frozen=True):
    """How many decisions were new."""

    added: int


class ExportAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Findings to write as a file."""

    format: Literal["kmz", "gpkg", "geojson", "csv", "html"]
    numbers: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=10_000)]


class Choices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows that show a label and rows that do not; ``text`` counts as one more example."""

    more: Annotated[tuple[Row, ...], Meta(max_length=MOST_CHOICES)]
    less: Annotated[tuple[Row, ...], Meta(max_length=MOST_CHOICES)] = ()
    text: Text | None = None


class CurvePoint(msgspec.Struct, frozen=True):
    """AUROC with so many examples: mean and standard deviation over five draws."""

    examples: int
    auroc: float
    spread: float


class Histogram(msgspec.Struct, frozen=True):
    """How many stored rows have a score between each two edges."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Taught(msgspec.Struct, frozen=True, omit_defaults=True):
    """How good a label from choices is, by cross-validation, and what it finds.

    ``precision`` is at one frame in a hundred that shows it, with its 95 % interval. ``hours`` of recorded time lie in
    the archive, None where no time is known; ``positives`` of its rows were chosen as examples.
    """

    method: str
    auroc: float
    recall: float
    precision: float
    precision_low: float
    precision_high: float
    threshold: float
    curve: tuple[CurvePoint, ...]
    histogram: Histogram
    hours: float | None
    positives: int
    preview: tuple[Seen, ...]
    note: str | None = None


class BankAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label to keep: alone in a bank of its name, or joined with the labels of the bank ``into``."""

    name: Name
    more: Annotated[tuple[Row, ...], Meta(max_length=MOST_CHOICES)]
    less: Annotated[tuple[Row, ...], Meta(max_length=MOST_CHOICES)] = ()
    text: Text | None = None
    threshold: Share = 0.5
    into: str | None = None


class SendAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bank to send to an aircraft, with its minisign signature where the aircraft wants one."""

    bank: str
    signature: Annotated[str, Meta(max_length=4096)] | None = None


class BankInFlight(msgspec.Struct, frozen=True, omit_defaults=True):
    """The bank that an aircraft matches now; ``error`` is its answer where it refused another."""

    bank: str
    name: str
    labels: tuple[str, ...]
    error: str | None = None


class Uploaded(msgspec.Struct, frozen=True):
    """A picture that was taken, by a name that other requests can give."""

    upload: str
    width: int
    height: int


class ClassifyAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture to classify with a bank or with labels, or to compare with sentences."""

    upload: str
    bank: str | None = None
    labels: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()
    sentences: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class LabelScore(msgspec.Struct, frozen=True):
    """A label with its score, or a sentence with its cosine."""

    label: str
    score: float


class Classified(msgspec.Struct, frozen=True):
    """What a picture shows; a large one is cut into ``tiles`` and the best of them counts for each label."""

    width: int
    height: int
    tiles: int
    label: str | None
    scores: tuple[LabelScore, ...]


class FeaturesAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pictures whose embeddings are wanted, as NumPy's ``.npz`` or as JSON."""

    uploads: Annotated[tuple[str, ...], Meta(min_length=1, max_length=200)]
    format: Literal["npz", "json"] = "npz"


class Footprint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ground of one frame: ``ring`` is (lat, lon) from bottom left, bottom right, top right, top left."""

    row: int
    frame: int
    number: str
    ring: tuple[Point, ...]
    label: str | None = None


class MapFlight(msgspec.Struct, frozen=True):
    """A flight on the map: ``track`` and ``bounds`` (south west, north east) are (lat, lon)."""

    id: str
    name: str
    track: tuple[Point, ...]
    footprints: tuple[Footprint, ...]
    bounds: tuple[Point, Point] | None


class Mosaic(msgspec.Struct, frozen=True):
    """A small picture of an orthomosaic; ``ring`` is the ground of its corners in the order of a footprint's."""

    name: str
    address: str
    ring: tuple[Point, ...]


class MapData(msgspec.Struct, frozen=True):
    """Everything of the archive that has a place."""

    flights: tuple[MapFlight, ...]
    mosaics: tuple[Mosaic, ...]


class TilesAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of map tiles on the server's disk: .mbtiles, or .pmtiles with raster tiles."""

    path: Annotated[str, Meta(min_length=1, max_length=1000)]
