"""One search from the command line's words to its answer and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.export.encode import TextEncoder
from overflight.export.prompts import read_templates
from overflight.runtime.bundle import Bundle, default_bundle
from overflight.station.archive import Archive
from overflight.station.search.export import export_hits
from overflight.station.search.search import search
from overflight.station.search.terms import embed_texts, read_terms
from overflight.station.search.wall import pictures_of, write_wall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from overflight.station.search.filters import Filters
    from overflight.station.search.search import Found


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
    wall: Path | None = None,
    out: Sequence[Path] = (),
    reviewed: str | None = None,
) -> tuple[Found, str]:
    """Search an archive, write what was asked for, and return the answer with a title for it.

    ``filters`` receives the rows that a review condition leaves, or None without one.
    """
    archive = Archive(directory)
    opened = Bundle.open(bundle or default_bundle())
    forms = read_templates(templates)
    terms = read_terms(opened, texts, like=like, unwanted=unwanted, templates=forms)

    def embed(background: Sequence[str]) -> NDArray[np.float32]:
        with TextEncoder(opened) as encoder:
            return embed_texts(encoder, background, forms)

    rows = None
    if reviewed is not None:
        from overflight.station.review import reviewed_rows

        rows = reviewed_rows(archive, reviewed)
    found = search(archive, opened, terms, filters(rows), embed=embed, most=most * page, false_alarm=false_alarm)
    found = msgspec.structs.replace(found, hits=(found.best if rank else found.hits)[most * (page - 1) :])
    title = ", ".join((*texts, *(path.name for path in like), *(f"not {text}" for text in unwanted)))
    if wall is not None or out:
        pictures = pictures_of(archive, found.hits)
        for path in out:
            export_hits(found.hits, pictures, path, title)
        if wall is not None:
            write_wall(wall, title, found, found.hits, pictures)
    return found, title
