"""The page's own files: complete in both languages, safe against texts from files, small, without foreign addresses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[3] / "station" / "serve" / "assets"
OWN = sorted(
    path for path in ASSETS.rglob("*") if path.suffix in {".js", ".css", ".html"} and "vendor" not in path.parts
)
MODULES = [path for path in OWN if path.suffix == ".js"]
CATALOGUE: dict[str, dict[str, str]] = json.loads((ASSETS / "catalogue.json").read_text(encoding="utf-8"))
PLACEHOLDER = re.compile(r"\{(\w+)")


def used() -> tuple[set[str], list[re.Pattern[str]]]:
    """Return the keys that the modules name, and patterns of those that they put together."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    whole = set(re.findall(r'"([a-z]+(?:\.[a-z_]+)+)"', text))
    pieces = [one for one in re.findall(r"t\(`([a-z.]*[^`/]*?)`", text) if re.match(r"[a-z]+\.", one)]
    return whole, [re.compile(re.sub(r"\\?\$\\?\{.*?\\?\}", "[a-z_]+", re.escape(one))) for one in pieces]


def test_every_text_exists_in_both_languages_with_the_same_values() -> None:
    """A text that lacks a language, or loses a value in one of them, is found."""
    for key, entry in CATALOGUE.items():
        assert set(entry) == {"en", "zh"}, key
        assert entry["en"].strip() and entry["zh"].strip(), key
        assert set(PLACEHOLDER.findall(entry["zh"])) == set(PLACEHOLDER.findall(entry["en"])), key
        if key not in {"frame.other_language", "filter.inside_hint", "format.geojson", "format.gpkg", "picture.of"}:
            assert re.search(r"[\u4e00-\u9fff]", entry["zh"]), f"{key} is not translated"


def test_the_page_names_no_text_that_is_missing_and_the_catalogue_none_that_is_unused() -> None:
    """Keys in the modules and keys in the catalogue are the same."""
    whole, patterns = used()
    named = {key for key in whole if key.split(".")[0] in {known.split(".")[0] for known in CATALOGUE}}
    assert named - set(CATALOGUE) == set()
    unused = {key for key in CATALOGUE if key not in whole and not any(one.fullmatch(key) for one in patterns)}
    assert {key for key in unused if not key.startswith("server.")} == set()


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_text_can_become_html_or_code(path: Path) -> None:
    """Labels, names and comments come from files: they are only ever text nodes, and the policy forbids inline code."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc", text
    )
    assert not re.search(r"bind(?:Tooltip|Popup)\((?!h\()", text), "Leaflet reads a string as HTML: give an element"
    if path.suffix == ".html":
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_is_loaded_from_another_machine(path: Path) -> None:
    """Every address is relative to the station."""
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_every_import_exists_and_a_module_says_what_it_is(path: Path) -> None:
    """A wrong path would only show when a view is opened."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// "), "a module opens with one sentence"
    assert text.count("\n") <= 400
    for target in re.findall(r'(?:from|import\()\s*"(\.[^"]+)"', text):
        assert (path.parent / target).is_file(), target


def test_all_of_it_is_small() -> None:
    """What the wheel carries for the page stays below 2 MB."""
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 2_000_000
