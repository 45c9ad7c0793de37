"""Changes in sentences from templates, in both languages; no free text is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.station.words import label_name, say

if TYPE_CHECKING:
    from overflight.station.changes.record import Changes
    from overflight.station.words import Language

_ON_MAP = (("north-west", "north", "north-east"), ("west", "middle", "east"), ("south-west", "south", "south-east"))
_IN_PICTURE = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))
_FLIPS = 3


def sentences(changes: Changes, language: Language) -> list[str]:
    """Return what changed, from what to what, where, and how well the pair was registered."""
    found = [how_much(changes, language)]
    if changes.changed_tiles:
        found.append(_flips(changes, language))
        if where := strongest(changes):
            found.append(say("change where", language, where=say(where, language)))
    state = changes.registration.state
    shift = changes.registration.error_m if state == "footprints" else changes.registration.shift_px
    found.append(say(f"registration {state}", language, shift=f"{shift or 0:.1f}"))
    return found


def how_much(changes: Changes, language: Language) -> str:
    """Return how many tiles changed, with the area where it is known."""
    total = len(changes.tiles)
    if not changes.changed_tiles:
        return say("change none", language, tiles=total)
    area = ""
    if changes.changed_area_m2 is not None and changes.area_error_m2 is not None:
        numbers = {"area": f"{changes.changed_area_m2:,.0f}", "error": f"{changes.area_error_m2:,.0f}"}
        area = say("change area", language, **numbers)
    share = f"{100 * changes.changed_share:.0f}"
    return say("change some", language, changed=changes.changed_tiles, tiles=total, share=share, area=area)


def strongest(changes: Changes) -> str | None:
    """Return the ninth of the picture that changed most; None where the cells of the tiles are not known."""
    if changes.rows < 2 or changes.columns < 2:
        return None
    sums = np.zeros((3, 3))
    for tile in changes.tiles:
        if tile.changed:
            place = (min(2, 3 * tile.row // changes.rows), min(2, 3 * tile.column // changes.columns))
            sums[place] += tile.score
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return (_ON_MAP if changes.tiles[0].ring else _IN_PICTURE)[row][column]


def _flips(changes: Changes, language: Language) -> str:
    named = [
        say(
            "change flip",
            language,
            before=label_name(before, language),
            after=label_name(after, language),
            count=count,
        )
        for before, after, count in changes.flips[:_FLIPS]
    ]
    if not named:
        return say("change unflipped", language)
    return say("change flips", language, flips=("、" if language == "zh" else ", ").join(named))
