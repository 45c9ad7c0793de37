"""Where examples come from: a folder of pictures, frames and tiles of a flight, or a list of both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.export.examples import example_hashes
from overflight.runtime.bank import LabelBank
from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.flight.directory import BANKS, JOURNAL, RECORD, read_record
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.overflight import embed
from overflight.runtime.sources.image import SUFFIXES, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Engine

MOST_LIST_BYTES = 10_000_000
_ROWS = re.compile(r"(\d+)(?:-(\d+)|\.(\d+))?")  # 120, 120-150, 120.4


class Examples(NamedTuple):
    """Unit embeddings ``[N, D]``, a hash of what each was made from, and what could not be read."""

    vectors: NDArray[np.float32]
    hashes: tuple[str, ...]
    unreadable: tuple[str, ...]


class _FlightRows(NamedTuple):
    """Frames and tiles of a flight: ``spans`` are first frame, last frame and tile (from 1, 0 is the whole frame)."""

    directory: Path
    spans: tuple[tuple[int, int, int], ...]


def read_examples(source: Path, bundle: Bundle, engine: Engine) -> Examples:
    """Embed a folder's pictures, or take a flight's own embeddings. Raises UsageError.

    ``source`` is a folder, ``FLIGHT#120,130-150,160.4`` (frames, and tile 4 of frame 160), or a text file with one
    picture or ``FLIGHT#…`` a line, relative to the file.
    """
    hashes: list[str] = []
    frames, vectors, unreadable = [], [], []
    for part in _parts(source):
        if isinstance(part, _FlightRows):
            kept = _kept_embeddings(part, bundle)
            vectors.append(kept)
            hashes += example_hashes(list(kept.astype(np.float16)))
            continue
        try:
            frames.append(read_image(part))
        except SourceError as error:
            unreadable.append(str(error))
    if frames:
        vectors.append(embed(engine, bundle, frames).copy())
        hashes += example_hashes([frame.pixels for frame in frames])
    if not vectors:
        raise UsageError(f"{source}: no pictures that can be read")
    return Examples(np.concatenate(vectors), tuple(hashes), tuple(unreadable))


def is_source(text: str) -> bool:
    """Whether a text names a folder, a list, or rows of a flight."""
    path = Path(text)
    return path.exists() or (Path(text.rpartition("#")[0]) / RECORD).is_file()


def _parts(source: Path) -> Iterator[Path | _FlightRows]:
    """Yield the pictures and the flights' rows of a source. Raises UsageError for what is neither."""
    if source.is_dir():
        if (source / RECORD).is_file():
            raise UsageError(f"{source}: a flight; name its frames, such as {source}#120,130-150,160.4")
        yield from (path for path in sorted(source.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file())
    elif source.suffix.lower() == ".txt" and source.is_file():
        yield from _listed(source)
    elif source.is_file():
        yield source
    else:
        yield _flight_rows(str(source))


def _listed(path: Path) -> Iterator[Path | _FlightRows]:
    if path.stat().st_size > MOST_LIST_BYTES:
        raise UsageError(f"{path}: over {MOST_LIST_BYTES:,} bytes, expected a list of pictures or FLIGHT#FRAMES")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text; expected a picture or FLIGHT#FRAMES on each line") from error
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        at = path.parent / line.strip()
        yield at if at.is_file() else _flight_rows(str(at))


def _flight_rows(text: str) -> _FlightRows:
    directory, mark, rows = text.rpartition("#")
    if not mark or not (Path(directory) / RECORD).is_file():
        raise UsageError(
            f"{text}: expected a folder of pictures, a list (.txt), or FLIGHT#FRAMES such as flight#120-150"
        )
    spans = []
    for part in rows.split(","):
        found = _ROWS.fullmatch(part.strip())
        if found is None:
            raise UsageError(f"{text}: {part!r} is no frame; expected 120, 120-150, or 120.4 for its tile 4")
        first = int(found[1])
        spans.append((first, int(found[2] or first), int(found[3] or 0)))
    return _FlightRows(Path(directory), tuple(spans))


def _kept_embeddings(rows: _FlightRows, bundle: Bundle) -> NDArray[np.float32]:
    """Return the embeddings that a flight kept of its frames and tiles. Raises UsageError for another tower."""
    record = read_record(rows.directory)
    tower = LabelBank.load(rows.directory / BANKS / f"{record.bank_sha256[:16]}.safetensors").header.tower
    if tower != bundle.manifest.tower:
        raise UsageError(
            f"{rows.directory}: embeddings of tower {tower[:12]}, but {bundle.manifest.name} is "
            f"{bundle.manifest.tower[:12]}; name the flight's bundle with --bundle"
        )
    found, asked = [], _asked(rows.spans)
    for observation, embedding, tiles in JournalReader(rows.directory / JOURNAL).frames():
        for tile in asked.pop(observation.frame, ()):
            vector = embedding if tile == 0 else None if tiles is None or tile > len(tiles) else tiles[tile - 1]
            if vector is None:
                raise UsageError(
                    f"{rows.directory}: no embedding of frame {observation.frame}" + (f", tile {tile}" * bool(tile))
                )
            found.append(vector)
    single = [first for first, last, _ in rows.spans if first == last and first in asked]
    if single or not found:
        raise UsageError(f"{rows.directory}: no frame {single[0] if single else rows.spans[0][0]} in this flight")
    vectors = np.stack(found).astype(np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _asked(spans: Sequence[tuple[int, int, int]]) -> dict[int, list[int]]:
    """Return the wanted tiles of each frame. A range names the frames that the flight has of it."""
    asked: dict[int, list[int]] = {}
    for first, last, tile in spans:
        if not first <= last < first + 1_000_000:
            raise UsageError(f"frames {first}-{last}: expected a first and a last frame, at most a million")
        for frame in range(first, last + 1):
            asked.setdefault(frame, []).append(tile)
    return asked
