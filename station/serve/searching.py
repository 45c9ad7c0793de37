"""Search from the page: the same search as on the command line, with rows and uploads as pictures to look for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from overflight.station.search.dictionary import translate
from overflight.station.search.filter_text import read_filters
from overflight.station.search.search import search, search_unlike
from overflight.station.search.terms import Terms
from overflight.station.serve.endpoint import Call, RefusedError
from overflight.station.serve.rows import kept_picture, one_row, seen_hits, source_file
from overflight.station.serve.shapes import Answer, Asked, Example

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from overflight.station.search.search import Found
    from overflight.station.serve.desk import Desk

_IDEOGRAPH = re.compile("[\u3400-\u9fff]")
_FILTERS = ("after", "before", "near", "inside", "height")
_LISTS = {"flight": "flights", "label": "labels"}


def post_search(desk: Desk, call: Call) -> Answer:
    """Search the archive."""
    asked: Asked = call.body
    given, rows = _given(desk, asked)
    filters = read_filters(given, rows)
    most = asked.most * asked.page
    if asked.unlike:
        found = search_unlike(desk.archive, desk.bundle, asked.unlike, filters, most=most)
    else:
        if asked.texts and not asked.like:
            desk.prepare_search()
        terms = read_asked(desk, asked)
        found = search(
            desk.archive,
            desk.bundle,
            terms,
            filters,
            embed=desk.embed_texts,
            most=most,
            false_alarm=asked.false_alarm,
        )
    return _answer(desk, asked, found)


def read_asked(desk: Desk, asked: Asked) -> Terms:
    """Embed what is asked for. Raises UsageError for Chinese words that the dictionary lacks."""
    translated = {text: translate(text) for text in (*asked.texts, *asked.unwanted) if _IDEOGRAPH.search(text)}
    texts = [translated.get(text, text) for text in asked.texts]
    unwanted = [translated.get(text, text) for text in asked.unwanted]
    none = np.empty((0, desk.bundle.manifest.width), np.float32)
    vectors = desk.embed_texts([*texts, *unwanted]) if texts or unwanted else none
    pictures = np.concatenate([_embed_example(desk, one) for one in asked.like]) if asked.like else none
    return Terms(vectors[: len(texts)], pictures, vectors[len(texts) :], translated=translated)


def _embed_example(desk: Desk, one: Example) -> NDArray[np.float32]:
    """Return the embedding of a row as it was recorded; of an upload, or a region of either, as it is seen now."""
    if one.row is not None and one.region is None:
        return desk.vectors_of([one.row])
    pixels = example_pixels(desk, one)
    if one.region is not None:
        pixels = cut_region(pixels, one.region)
    return desk.embed_pictures([pixels])


def example_pixels(desk: Desk, one: Example) -> NDArray[np.uint8]:
    """Return the picture of an example, RGB ``[H, W, 3]``. Raises RefusedError."""
    from overflight.runtime.sources.image import opencv, read_image

    if one.upload is not None:
        path = desk.upload(one.upload)
    elif one.row is None:
        raise RefusedError(422, "invalid", "like: expected a row or an upload")
    else:
        seen, flight = one_row(desk, one.row), desk.flight_of(one.row)
        source = source_file(desk, flight, seen.name)
        if source is None:
            decoded = opencv().imdecode(np.frombuffer(kept_picture(desk, flight, seen), np.uint8), 1)
            return np.ascontiguousarray(decoded[:, :, ::-1])
        path = source
    frame = read_image(path)
    return np.ascontiguousarray(frame.pixels if frame.order == "rgb" else frame.pixels[:, :, ::-1])


def cut_region(pixels: NDArray[np.uint8], region: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """Return a part of a picture; ``region`` is x, y, width, height as shares. Raises RefusedError for an empty one."""
    tall, wide = pixels.shape[:2]
    x, y, width, height = region
    left, top = round(x * wide), round(y * tall)
    right, bottom = min(wide, round((x + width) * wide)), min(tall, round((y + height) * tall))
    if right - left < 4 or bottom - top < 4:
        raise RefusedError(422, "invalid", f"region {region}: smaller than 4 pixels; mark a larger part")
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _given(desk: Desk, asked: Asked) -> tuple[dict[str, Any], frozenset[int] | None]:
    from overflight.station.review import reviewed_rows

    unknown = asked.filters.keys() - {*_FILTERS, *_LISTS, "reviewed", "kind"}
    if unknown:
        raise RefusedError(422, "invalid", f"filters {sorted(unknown)}: not known")
    given: dict[str, Any] = {name: asked.filters.get(name) or None for name in _FILTERS}
    for name, plural in _LISTS.items():
        given[plural] = (asked.filters[name],) if asked.filters.get(name) else ()
    given["kind"] = asked.filters.get("kind") or "all"
    if given["kind"] not in {"all", "frames", "tiles"}:
        raise RefusedError(422, "invalid", f"kind {given['kind'][:40]!r}: expected all, frames or tiles")
    state = asked.filters.get("reviewed")
    if state not in {None, "", "yes", "no", "confirmed", "rejected"}:
        raise RefusedError(422, "invalid", f"reviewed {state[:40]!r}: expected yes, no, confirmed or rejected")
    return given, reviewed_rows(desk.archive, state) if state else None


def _answer(desk: Desk, asked: Asked, found: Found) -> Answer:
    start = asked.most * (asked.page - 1)
    hits: Sequence[Any] = (found.best if asked.rank else found.hits)[start : start + asked.most]
    return Answer(
        hits=seen_hits(desk, hits),
        best=seen_hits(desk, found.best[:6]),
        searched=found.searched,
        unknown=found.unknown,
        unindexed=found.unindexed,
        cutoff=found.cutoff,
        false_alarm=found.false_alarm,
        held_out=found.held_out,
        translated=found.translated,
    )
