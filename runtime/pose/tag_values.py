"""The values of a still's XMP, each checked by itself, with a note for each that cannot be used."""

from __future__ import annotations

import re

from overflight.runtime.pose.fields import number

_UNKNOWN = {"", "n/a", "na", "nan", "null", "none", "unknown", "invalid"}  # how makers write that they do not know
_XMP_DEGREES = re.compile(
    r"(\d{1,3}(?:\.\d{1,20})?)(?:,(\d{1,2}(?:\.\d{1,20})?))?(?:,(\d{1,2}(?:\.\d{1,20})?))?\s{0,8}([NSEWnsew])"
)

_WITH_UNIT = re.compile(r"([+-]?\d{1,20}(?:[.,]\d{1,20})?)\s{0,4}(?:m|deg|°|m/s)?")


class TagValues:
    """Looks values up by maker and name. ``notes`` names each that was written and is of no use."""

    def __init__(self, xmp: dict[str, str]) -> None:
        self._xmp = xmp
        self.notes: list[str] = []

    def note(self, name: str, why: str) -> None:
        """Record why a value is not used, once."""
        if f"{name} {why}" not in self.notes:
            self.notes.append(f"{name} {why}")

    def text(self, key: str) -> str:
        """Return a value as text; empty where it is missing or the maker's word for not knowing."""
        value = self._xmp.get(key, "").strip()
        return "" if value.lower() in _UNKNOWN else value

    def number(self, key: str) -> float | None:
        """Return a value as a number, or None where it is missing or is not one."""
        if key not in self._xmp:
            return None
        try:
            return number(_bare(self._xmp[key]))
        except ValueError:
            self.note(key.partition(":")[2], f"{self._xmp[key]!r} is not a number")
            return None

    def first(self, *keys: str) -> float | None:
        """Return the first of several values that is a number."""
        return next((value for key in keys if (value := self.number(key)) is not None), None)

    def pair(self, makers: tuple[str, ...]) -> tuple[float | None, float | None]:
        """Return latitude and longitude as the first maker with both writes them, its misspellings included."""
        for maker in makers:
            lat = self.first(f"{maker}:GpsLatitude", f"{maker}:GPSLatitude", f"{maker}:Latitude")
            lon = self.first(
                *(f"{maker}:{name}" for name in ("GpsLongitude", "GpsLongtitude", "GPSLongitude", "Longitude"))
            )
            if lat is not None and lon is not None:
                return lat, lon
        return None, None

    def degrees(self, key: str) -> float | None:
        """Return a coordinate in XMP's form: ``46,50.556N`` or ``46,50,33W``."""
        text = self.text(key)
        if not text:
            return None
        found = _XMP_DEGREES.fullmatch(text)
        if found is None:
            self.note(key.partition(":")[2], f"{text!r} is not a coordinate")
            return None
        degrees = float(found[1]) + float(found[2] or 0) / 60 + float(found[3] or 0) / 3600
        return -degrees if found[4] in "SWsw" else degrees


def _bare(text: str) -> str:
    """Return a number without its unit, and with a point where its decimals stand behind a comma."""
    found = _WITH_UNIT.fullmatch(text.strip())
    return found[1].replace(",", ".") if found else text
