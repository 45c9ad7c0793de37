"""The report's coverage: how much ground the footprints show, how often, and how finely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import MissingError, UsageError
from overflight.station.coverage import counts, cover_places
from overflight.station.page import tag

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from overflight.station.coverage import Coverage
    from overflight.station.summary import Summary

_LOOKS = ((1, 1, "once"), (2, 2, "twice"), (3, 5, "3 to 5 times"), (6, None, "6 times or more"))


def coverage_chapter(summary: Summary) -> Element | None:
    """Make the section; None where no frame has a footprint, or what computes their union is not installed."""
    places = [place for place in summary.places if counts(place)]
    if not places:
        return None
    try:
        coverage = cover_places(places, len(summary) - len(places))
    except MissingError:
        return None
    except UsageError as error:  # too many cells for a page
        return tag("section", tag("h2", "Coverage"), tag("p", f"Not computed: {error}", class_="note"))
    rows = [
        tag("tr", tag("th", words, scope="row"), tag("td", f"{share:.0%}", class_="number"))
        for words, share in _looks(coverage)
    ]
    frames = f"{coverage.frames:,} footprints" + (
        f"; frames without one: {coverage.without_place:,}" if coverage.without_place else ""
    )
    text = f"{_area(coverage.covered_m2)} of ground shown by {frames}. {_fineness(coverage)}"
    note = "Coverage is where the camera looked. It is not a probability of detection."
    return tag(
        "section",
        tag("h2", "Coverage"),
        tag("p", text),
        tag("table", tag("tbody", rows), class_="narrow"),
        tag("p", note, class_="note"),
    )


def _looks(coverage: Coverage) -> list[tuple[str, float]]:
    """Return the shares of the ground that was shown so many times; those that do not occur are left out."""
    looks = np.array(_cells(coverage, "looks"))
    shares = [
        (words, float(((looks >= least) & (looks <= (most or looks.max()))).mean())) for least, most, words in _LOOKS
    ]
    return [(words, share) for words, share in shares if share]


def _fineness(coverage: Coverage) -> str:
    gsds_m = [gsd for gsd in _cells(coverage, "gsd_m") if gsd is not None]
    return f"Ground sample distance {np.median(gsds_m):.2g} m (median of the finest look)." if gsds_m else ""


def _cells(coverage: Coverage, name: str) -> list:  # type: ignore[type-arg]
    return [
        feature.properties[name] for layer in coverage.layers if layer.name == "cells" for feature in layer.features
    ]


def _area(area_m2: float) -> str:
    return f"{area_m2 / 1e6:,.2f} km²" if area_m2 >= 1e5 else f"{area_m2:,.0f} m²"
