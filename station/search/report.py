"""One search from the command line's words to its answer and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.export.encode import TextEncoder
from overflight.export.prompts import read_templates
from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.errors import UsageError
from overflight.station.archive import Archive
from overflight.station.review import finding_number
from overflight.station.search.export import check_formats, export_hits
from overflight.station.search.search import same_ground, search, search_unlike
from overflight.station.search.terms import embed_texts, read_terms
from overflight.station.search.wall import check_wall, pictures_of, write_wall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from overflight.station.search.filters import Filters
    from overflight.station.search.search import Found

MOST_SAME_GROUND = 6


def run(
    directory: Path,
    texts: Sequence[str],
    *,
    filters: Callable[[frozenset[int] | None], Filters],
    like: Sequence[Path] = (),
    unwanted: Sequence[str] = (),
    bundle: Path | None = None,
    templates: str = "aerial",
    most: int = 25,
    page: int = 1,
    false_alarm: float = 0.05,
    rank: bool = False,
    wall: Sequence[Path] = (),
    out: Sequence[Path] = (),
    reviewed: str | None = None,
    unlike: Sequence[str] = (),
) -> tuple[Found, str]:
    """Search an archive, write what was asked for, and return the answer with a title for it.

    ``filters`` receives the rows that a review condition leaves, or None without one.
    """
    check_formats(out)
    for path in wall:
        check_wall(path)
    archive = Archive(directory)
    opened = Bundle.open(bundle or default_bundle())
    rows = _reviewed(archive, reviewed)
    if unlike:
        if texts or like or unwanted:
            raise UsageError("--unlike ranks by itself; leave out the texts and pictures")
        found = search_unlike(archive, opened, unlike, filters(rows), most=most * page)
    else:
        found = _by_terms(archive, opened, texts, like, unwanted, templates, filters(rows), most * page, false_alarm)
    found = msgspec.structs.replace(found, hits=(found.best if rank else found.hits)[most * (page - 1) :])
    found = msgspec.structs.replace(found, same_ground=_same_ground(archive, found))
    title = ", ".join((*texts, *(path.name for path in like), *(f"not {text}" for text in unwanted)))
    title = title or f"unlike {', '.join(unlike)}"
    if wall or out:
        pictures = pictures_of(archive, found.hits)
        for path in out:
            export_hits(found.hits, pictures, path, title)
        for path in wall:
            write_wall(path, title, found, found.hits, pictures, archive)
    return found, title


def _by_terms(
    archive: Archive,
    opened: Bundle,
    texts: Sequence[str],
    like: Sequence[Path],
    unwanted: Sequence[str],
    templates: str,
    filters: Filters,
    most: int,
    false_alarm: float,
) -> Found:
    forms = read_templates(templates)
    terms = read_terms(opened, texts, like=like, unwanted=unwanted, templates=forms)

    def embed(background: Sequence[str]) -> NDArray[np.float32]:
        with TextEncoder(opened) as encoder:
            return embed_texts(encoder, background, forms)

    return search(archive, opened, terms, filters, embed=embed, most=most, false_alarm=false_alarm)


def _reviewed(archive: Archive, state: str | None) -> frozenset[int] | None:
    if state is None:
        return None
    from overflight.station.review import reviewed_rows

    return reviewed_rows(archive, state)


def _same_ground(archive: Archive, found: Found) -> dict[int, tuple[str, ...]]:
    """Name the frames of other flights that show the ground of each hit, whether they matched or not."""
    with archive.read() as connection:
        rows = {hit.row: same_ground(connection, hit, MOST_SAME_GROUND) for hit in found.hits}
    return {
        row: tuple(finding_number(flight, frame) for flight, frame, _ in seen) for row, seen in rows.items() if seen
    }
