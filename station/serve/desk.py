"""What the server works with: the archive, the bundle with its towers, label banks, uploads, and flights to show."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bank import LabelBank
from overflight.runtime.errors import OverflightError
from overflight.station.archive import Archive
from overflight.station.serve.endpoint import RefusedError
from overflight.station.serve.health_links import HealthLinks
from overflight.station.serve.overviews import Overviews
from overflight.station.serve.tracks import Tracks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.export.encode import TextEncoder
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Engine
    from overflight.runtime.frame import Frame
    from overflight.station.archive import ArchivedFlight

    Vectors = NDArray[np.float32]

TEMPLATES = "aerial"
TEXTS_AT_ONCE = 4
KEPT_UPLOADS = 200
KEPT_UPLOAD_BYTES = 2 << 30
_UPLOAD = re.compile(r"[0-9a-f]{32}\.[a-z]{3,4}")
_KINDS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"II+\0": "tif",
    b"MM\0+": "tif",
    b"RIFF": "webp",
    b"BM": "bmp",
}


@dataclass(frozen=True)
class Settings:
    """How the server was started. ``aircraft`` are addresses of health links, ``flights`` directories to show."""

    archive: Path | None = None
    bundle: Path | None = None
    flights: tuple[Path, ...] = ()
    aircraft: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8440
    names: tuple[str, ...] = ()
    token: str | None = None
    upload_bytes: int = 1_000_000_000


class Desk:
    """Shared by every request. Towers are loaded when first needed; one request at a time uses them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._archive = Archive(settings.archive) if settings.archive is not None else None
        self._towers = threading.Lock()
        self._keeping = threading.Lock()
        self._preparing = threading.Lock()
        self._encoder: TextEncoder | None = None
        self._engine: Engine | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="overflight-serve-")
        self.uploads = Path(self._scratch.name) / "kept"
        self.incoming = Path(self._scratch.name) / "incoming"
        self.uploads.mkdir()
        self.incoming.mkdir()
        self.embedded: dict[str, Vectors] = {}  # of uploads, by their name
        self.closing = threading.Event()
        self.links = HealthLinks(settings.aircraft)
        self.tracks = Tracks()
        self.overviews = Overviews(self.closing)

    @property
    def archive(self) -> Archive:
        """The archive. Raises RefusedError where the server has none."""
        if self._archive is None:
            raise RefusedError(409, "no-archive", "this server has no archive; start it with: overflight serve ARCHIVE")
        return self._archive

    @property
    def has_archive(self) -> bool:
        """Whether there is an archive with an index."""
        return self._archive is not None and self._archive.index.is_file()

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle. Raises OverflightError where there is none."""
        from overflight.runtime.bundle import Bundle, default_bundle

        return Bundle.open(self.settings.bundle or default_bundle())

    @property
    def model(self) -> str | None:
        """The model's name, None where no bundle can be opened."""
        try:
            return self.bundle.manifest.name
        except OverflightError:
            return None

    def flights(self) -> list[ArchivedFlight]:
        """Return the archive's flights; none where there is no archive yet."""
        return self.archive.flights() if self.has_archive else []

    def flight_of(self, row: int) -> ArchivedFlight:
        """Return the flight that a row belongs to. Raises RefusedError."""
        return _owner(self.flights(), row)

    def vectors_of(self, rows: Sequence[int]) -> Vectors:
        """Return the unit embeddings ``[N, D]`` of rows of the bundle's tower. Raises RefusedError."""
        tower, flights = self.bundle.manifest.tower, self.flights()
        found = np.empty((len(rows), self.bundle.manifest.width), np.float32)
        for place, row in enumerate(rows):
            flight = _owner(flights, row)
            if flight.tower != tower:
                raise RefusedError(
                    409, "tower", f"row {row} was embedded by {flight.model}, this server has {self.model}"
                )
            vector = self.archive.vectors(flight)[row - flight.first].astype(np.float32)
            found[place] = vector / np.linalg.norm(vector)
        return found

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts in the templates of a search ``[N, D]``, a few at a time: the server can stop between them."""
        from overflight.export.encode import TextEncoder
        from overflight.export.prompts import read_templates
        from overflight.station.search.terms import embed_texts

        found = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            with self._towers:
                self._check_open()
                self._encoder = self._encoder or TextEncoder(self.bundle).__enter__()
                part = texts[start : start + TEXTS_AT_ONCE]
                found.append(embed_texts(self._encoder, part, read_templates(TEMPLATES)))
        return np.concatenate(found)

    def prepare_search(self) -> None:
        """Embed the texts that every search by text is compared with; the archive keeps them, so this happens once."""
        from overflight.station.search.cutoff import background_vectors

        with self._preparing:
            background_vectors(self.archive, self.bundle.manifest.tower, self.embed_texts)

    def prepare_early(self) -> None:
        """Prepare the first search before somebody asks; what cannot be prepared is reported by the search itself."""

        def prepare() -> None:
            with contextlib.suppress(OverflightError, OSError):
                if any(one.tower == self.bundle.manifest.tower for one in self.flights()):
                    self.prepare_search()

        if self.has_archive:
            threading.Thread(target=prepare, name="prepare search", daemon=True).start()

    def _check_open(self) -> None:
        if self.closing.is_set():
            raise RefusedError(503, "closing", "the server is stopping; ask again when it runs")

    def embed_pictures(self, pictures: Sequence[NDArray[np.uint8] | Frame]) -> Vectors:
        """Embed pictures (RGB) ``[N, D]``."""
        from overflight.runtime.overflight import embed
        from overflight.runtime.store import default_engine

        with self._towers:
            self._check_open()
            self._engine = self._engine or default_engine(self.bundle)
            vectors: Vectors = embed(self._engine, self.bundle, pictures).copy()
            return vectors

    def keep_upload(self, taken: Path) -> str:
        """Keep a file that was taken in and return its name; the oldest go. Raises RefusedError for no picture."""
        with taken.open("rb") as file:
            start = file.read(8)
        kind = next((kind for mark, kind in _KINDS.items() if start.startswith(mark)), None)
        if kind is None:
            raise RefusedError(422, "picture", "not a JPEG, PNG, TIFF, WebP or BMP; convert the picture first")
        name = f"{uuid.uuid4().hex}.{kind}"
        with self._keeping:
            self._make_room(taken.stat().st_size)
            taken.rename(self.uploads / name)
        return name

    def _make_room(self, size: int) -> None:
        """Delete the oldest uploads until there is room for another, by count and by bytes."""
        kept = sorted(self.uploads.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        sizes = [path.stat().st_size for path in kept]
        while kept and (len(kept) >= KEPT_UPLOADS or sum(sizes) + size > KEPT_UPLOAD_BYTES):
            self.embedded.pop(kept[0].name, None)
            kept.pop(0).unlink(missing_ok=True)
            sizes.pop(0)

    def upload(self, name: str) -> Path:
        """Return the file of an upload. Raises RefusedError."""
        path = self.uploads / name
        if not _UPLOAD.fullmatch(name) or not path.is_file():
            raise RefusedError(404, "unknown", f"upload {name[:40]!r}: not here any more; send the picture again")
        return path

    def banks(self) -> dict[str, Path]:
        """Return the label banks that can be used, by id: the bundle's own, and those saved in the archive."""
        found: dict[str, Path] = {}
        try:
            names = sorted(name for name in self.bundle.manifest.files if name.endswith(".safetensors"))
            found = {
                f"bundle.{Path(name).stem}": self.bundle.file(name) for name in names if name.startswith("labels/")
            }
        except OverflightError:
            found = {}
        saved = sorted(self._archive.directory.glob("banks/*.safetensors")) if self._archive is not None else []
        return found | {f"saved.{path.stem}": path for path in saved}

    def bank(self, name: str) -> tuple[Path, LabelBank]:
        """Return a bank by its id. Raises RefusedError."""
        path = self.banks().get(name)
        if path is None:
            raise RefusedError(404, "unknown", f"bank {name[:80]!r}: not one of {', '.join(self.banks())}")
        return path, LabelBank.load(path)

    def close(self) -> None:
        """Free the towers and remove the uploads; work on a large picture ends at its next window."""
        self.closing.set()
        with self._towers:
            if self._engine is not None:
                self._engine.close()
            if self._encoder is not None:
                self._encoder.__exit__(None, None, None)
        self._scratch.cleanup()


def _owner(flights: Sequence[ArchivedFlight], row: int) -> ArchivedFlight:
    for flight in flights:
        if flight.first <= row < flight.first + flight.rows:
            return flight
    raise RefusedError(404, "unknown", f"row {row}: not in this archive")
