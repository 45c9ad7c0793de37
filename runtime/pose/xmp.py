"""XMP packets: the values that makers of aircraft and cameras write there, by maker and name."""

from __future__ import annotations

import codecs
import re
from xml.parsers import expat

# What a namespace's address contains -> the short name of its maker. The prefix in the file may be any.
MAKERS = {
    "dji.com": "dji",
    "parrot.com": "parrot",
    "skydio.com": "skydio",
    "autel": "autel",
    "pix4d.com": "camera",
    "sensefly.com": "camera",
    "micasense.com": "micasense",
    "ns.adobe.com/exif": "exif",
    "ns.adobe.com/tiff": "tiff",
}
_PREFIXES = {
    "drone-dji": "dji", "drone-parrot": "parrot", "drone-skydio": "skydio", "drone": "autel", "Camera": "camera",
    "exif": "exif", "tiff": "tiff",
}  # fmt: skip
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_MAX_VALUES, _MAX_DEPTH, _MAX_CHARACTERS, _MAX_NAME = 4096, 32, 4096, 128
# A parser writes a namespace's whole address before each name: a long one makes its work quadratic. Entities multiply.
_COSTLY = re.compile(rb"<!DOCTYPE|xmlns[^=>]{0,256}=\s{0,64}[\"'][^\"']{512}")
_SEARCHED = 1 << 20  # characters of a broken packet
_UNKNOWN = "?"


def read_xmp(packet: bytes) -> dict[str, str]:
    """Return the values of known makers, as ``dji:GimbalPitchDegree``; parts of a structure as ``skydio:A/Pitch``.

    Values stand as attributes, elements, structures or lists (the first item counts). Where the XML is broken, what can
    be found of it by pattern is used.
    """
    if packet[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        packet = packet.decode("utf-16", "replace").encode()
    if _COSTLY.search(packet):
        return {}
    start = packet.find(b"<")
    values: dict[str, str] = {}
    try:
        _Reader(values).parse(packet[max(0, start) :].rstrip(b"\x00 \r\n\t"))
    except (expat.ExpatError, ValueError, LookupError):
        return _by_pattern(packet[:_SEARCHED].decode("utf-8", "replace")) | values
    return values


class _Reader:
    """Collects the values of one packet while the parser walks through it."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self._path: list[str] = []
        self._text = ""
        self._parser = expat.ParserCreate("utf-8", " ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._add
        self._parser.EntityDeclHandler = self._refuse

    def parse(self, packet: bytes) -> None:
        self._parser.Parse(packet, True)

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) == _MAX_DEPTH:
            raise ValueError("too many levels")
        self._path.append(_short(name))
        self._text = ""
        for attribute, value in attributes.items():
            if (short := _short(attribute)) not in {"", _UNKNOWN}:
                self._keep([*self._path, short], value)

    def _add(self, text: str) -> None:
        self._text += text[: _MAX_CHARACTERS - len(self._text)]

    def _end(self, _name: str) -> None:
        if self._text.strip():
            self._keep(self._path, self._text)
        self._path.pop()
        self._text = ""

    def _keep(self, path: list[str], value: str) -> None:
        names = [part for part in path if part]
        if names and _UNKNOWN not in names and len(self._values) < _MAX_VALUES:
            key = names[0] + "".join("/" + name.partition(":")[2] for name in names[1:])
            self._values.setdefault(key, value[:_MAX_CHARACTERS].strip())

    @staticmethod
    def _refuse(*_: object) -> None:
        raise ValueError("declares entities")


def _short(name: str) -> str:
    """Return ``maker:Name`` for a known maker's name, nothing for RDF's own elements and those without a namespace."""
    address, _, local = name.rpartition(" ")
    if address in {_RDF, "adobe:ns:meta/", ""}:
        return ""
    if len(local) > _MAX_NAME:
        return _UNKNOWN
    return next((f"{maker}:{local}" for part, maker in MAKERS.items() if part in address.lower()), _UNKNOWN)


def _by_pattern(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for prefix, maker in _PREFIXES.items():
        pairs = re.findall(rf'\b{prefix}:(\w{{1,64}})\s{{0,8}}=\s{{0,8}}["\']([^"\']{{0,200}})["\']', text)
        pairs += re.findall(rf"<{prefix}:(\w{{1,64}})>([^<]{{0,200}})</", text)
        found |= {f"{maker}:{name}": value.strip() for name, value in pairs}
    return found
