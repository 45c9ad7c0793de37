"""Writing a page: HTML elements that escape whatever is put into them, in one self-contained file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, tostring  # only ever written, never parsed

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

Child = Element | str | None


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: object) -> Element:
    """Make an element: ``tag("p", "text", tag("b", "more"), class_="note")``.

    Text and attributes are escaped when the page is written. ``class_`` becomes class, ``data_row`` data-row; an
    attribute that is None is left out, and so is a child.
    """
    given = {key.strip("_").replace("_", "-"): str(value) for key, value in attributes.items() if value is not None}
    element = Element(name, given)
    for child in children:
        for part in [child] if isinstance(child, Element | str) or child is None else child:
            if isinstance(part, Element):
                element.append(part)
            elif part is not None and len(element):
                element[-1].tail = (element[-1].tail or "") + part
            elif part is not None:
                element.text = (element.text or "") + part
    return element


def data(name: str, value: object) -> Element:
    """Carry ``value`` to the page's script as JSON; no text in it can end the element early."""
    raw = msgspec.json.encode(value).decode().replace("<", "\\u003c")
    return tag("script", raw, type="application/json", id=name)


def page(title: str, body: Iterable[Child], *, style: str, script: str | None, language: str = "en") -> bytes:
    """Write a whole document that asks for nothing else: ``style`` and ``script`` are files of this room."""
    here = Path(__file__).parent
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", (here / style).read_text(encoding="utf-8")),
    )
    tail = None if script is None else tag("script", (here / script).read_text(encoding="utf-8"))
    document = tag("html", head, tag("body", body, tail), lang=language)
    return b"<!doctype html>\n" + bytes(tostring(document, encoding="utf-8", method="html")) + b"\n"
