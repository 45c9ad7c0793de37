"""Composition: which share of the tiles each label won, its interval, and its area where the scale is known."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from overflight.export.statistics import Z95, wilson
from overflight.station.describe.record import CoverShare

if TYPE_CHECKING:
    from collections.abc import Sequence


def compose(
    labels: Sequence[str | None],
    areas_m2: Sequence[float | None],
    gsd_error: float | None,
    hashes: tuple[str, str, str],
) -> tuple[CoverShare, ...]:
    """Sum up the tiles' labels, largest share first.

    Areas are given only where every tile's is known. Their error joins the interval of the share with twice the error
    of the ground sample distance, for an area grows with its square.
    """
    total = len(labels)
    if not total:
        return ()
    known = [area for area in areas_m2 if area is not None]
    whole = sum(known) if len(known) == total and gsd_error is not None else None
    model, bank, source = hashes
    found = []
    for label, count in sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0] or "\uffff")):
        low, high = wilson(count, total)
        area = error = None
        if whole is not None and gsd_error is not None:
            area = sum(size or 0.0 for size, one in zip(areas_m2, labels, strict=True) if one == label)
            sampling = whole * max(high - count / total, count / total - low)
            error = math.hypot(sampling, 2 * Z95 * gsd_error * area)
        found.append(
            CoverShare(
                label=label,
                tiles=count,
                share=round(count / total, 4),
                low=round(low, 4),
                high=round(high, 4),
                area_m2=None if area is None else float(f"{area:.4g}"),
                area_error_m2=None if error is None else float(f"{error:.3g}"),
                model=model,
                bank=bank,
                source=source,
            )
        )
    return tuple(found)
