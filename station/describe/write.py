"""Writing a description for people, in English or Chinese: Markdown and one self-contained HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.station.page import page, tag
from overflight.station.words import label_name, say

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from overflight.station.describe.record import CoverShare, Description, Field
    from overflight.station.words import Language

ORDER = ("space", "cover", "state", "season", "quality", "other")
_MEASURED = "quality"


def lead(description: Description, language: Language) -> str:
    """Return the description in one or two sentences from a template."""
    space = description.field("space")
    place = None if space is None or space.value is None else label_name(space.value, language)
    first = say("place known", language, place=place) if place else say("place unknown", language)
    most = [f"{label_name(one.label, language)} {one.share:.0%}" for one in description.cover[:3]]
    return say("lead", language, place=first, cover=("、" if language == "zh" else ", ").join(most))


def value_text(field: Field, language: Language) -> str:
    """Return a field's value for people, or that it abstains and why."""
    if field.value is None:
        return say("abstained", language, reason=say(f"reason: {field.reason}", language))
    return say(field.value, language) if field.dimension == _MEASURED else label_name(field.value, language)


def name_text(field: Field, language: Language) -> str:
    """Return a field's name for people."""
    group, colon, label = field.name.partition(": ")
    try:
        text = say(group, language)
    except KeyError:
        text = group
    return f"{text}: {label_name(label, language)}" if colon else text


def alternatives_text(field: Field, language: Language) -> str:
    """Return a field's alternatives for people."""
    if field.dimension == _MEASURED:
        return ", ".join(say(one.value, language) for one in field.alternatives)
    return ", ".join(
        label_name(one.value, language) + (f" {one.share:.2f}" if one.share is not None else "")
        for one in field.alternatives
    )


def number_text(value: float | None) -> str:
    """Return a number for people; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def area_text(share: CoverShare) -> str:
    """Return an area with its error; a dash where it is not known."""
    if share.area_m2 is None or share.area_error_m2 is None:
        return "-"
    if share.area_m2 >= 10_000:
        return f"{share.area_m2 / 10_000:.3g} ± {share.area_error_m2 / 10_000:.2g} ha"
    return f"{share.area_m2:,.0f} ± {share.area_error_m2:,.0f} m²"


def facts(description: Description, language: Language) -> list[tuple[str, str]]:
    """Return where the description comes from, as names and values for people."""
    ground = description.ground
    text = say("not known", language)
    if ground is not None:
        origin = say(ground.origin, language)
        text = say("ground text", language, gsd=f"{ground.gsd_m:.3g}", error=f"{100 * ground.error:.0f}", origin=origin)
    found = [
        (say("source", language), description.source),
        (say("taken", language), description.taken_utc or say("not known", language)),
        (say("ground", language), text),
        (say("tiles", language), f"{description.tiles}" + (f" x {description.tile_px} px" * bool(description.tile_px))),
        (say("model", language), f"{description.model} {description.hashes.model}"),
        (say("bank", language), f"{description.bank} {description.hashes.bank}"),
        (say("hash", language), description.hashes.source),
    ]
    if description.width_px is not None:
        found.insert(1, (say("size", language), f"{description.width_px} x {description.height_px} px"))
    else:
        found.insert(1, (say("frames", language), f"{description.frames:,}"))
    return found


def remarks(description: Description, language: Language) -> list[str]:
    """Return what a reader must know."""
    missing = description.missing_tiles
    return [
        say("honesty", language),
        *([say("missing", language, count=missing)] if missing else []),
        *description.notes,
    ]


def fields_by_dimension(description: Description) -> list[tuple[str, list[Field]]]:
    """Return the fields in the order in which they are shown; dimensions without a field are left out."""
    grouped = [(name, [field for field in description.fields if field.dimension == name]) for name in ORDER]
    return [(name, fields) for name, fields in grouped if fields or name == "cover"]


def to_markdown(description: Description, language: Language) -> str:
    """Write the description as Markdown."""
    lines = [f"# {say('description', language)}", "", lead(description, language), ""]
    heads = " | ".join(say(key, language) for key in ("field", "value", "score", "margin", "alternatives"))
    for dimension, fields in fields_by_dimension(description):
        lines += [f"## {say(dimension, language)}", ""]
        if fields:
            lines += [f"| {heads} |", "|---|---|--:|--:|---|"]
            lines += [f"| {' | '.join(map(_escape, _cells(field, language)))} |" for field in fields]
            lines.append("")
        if dimension == "cover":
            heads_cover = " | ".join(say(key, language) for key in ("label", "tiles", "share", "interval", "area"))
            lines += [f"| {heads_cover} |", "|---|--:|--:|--:|--:|"]
            lines += [f"| {' | '.join(_share_cells(one, language))} |" for one in description.cover]
            lines.append("")
    lines += [f"- {_escape(remark)}" for remark in remarks(description, language)]
    lines.append("")
    lines += [f"- {name}: {_escape(value)}" for name, value in facts(description, language)]
    return "\n".join(lines) + "\n"


def to_html(description: Description, language: Language) -> bytes:
    """Write the description as a page that asks for nothing else."""
    header = tag(
        "header",
        tag("p", say("description", language), class_="kind"),
        tag("h1", description.source.rpartition("/")[2]),
        tag("p", lead(description, language), class_="lead"),
    )
    body = tag("main", header, *sections(description, language), lang=language)
    return page(
        f"{say('description', language)} · {description.source.rpartition('/')[2]}",
        [body],
        style="report.css",
        script=None,
        language=language,
    )


def sections(description: Description, language: Language) -> list[Element]:
    """Return the chapters of a description, for its own page and for the report of a flight."""
    found = []
    for dimension, fields in fields_by_dimension(description):
        parts: list[Element] = []
        if fields:
            heads = ("field", "value", "score", "margin", "alternatives")
            parts.append(_table([say(key, language) for key in heads], [_cells(field, language) for field in fields]))
        if dimension == "cover":
            keys = ("label", "tiles", "share", "interval", "area")
            shares = [_share_cells(one, language) for one in description.cover]
            parts.append(_table([say(key, language) for key in keys], shares))
        found.append(tag("section", tag("h2", say(dimension, language)), parts))
    notes = [tag("p", remark, class_="note") for remark in remarks(description, language)]
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts(description, language)]
    found.append(tag("section", tag("h2", say("notes", language)), notes, tag("dl", rows, class_="facts")))
    return found


def _table(heads: list[str], rows: list[list[str]]) -> Element:
    numbers = [all(not row[place] or row[place][0] in "-0123456789" for row in rows) for place in range(len(heads))]
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", [tag("th", head, scope="col") for head in heads])),
            tag(
                "tbody",
                [
                    tag(
                        "tr", [tag("td", cell, class_="number" if numbers[at] else None) for at, cell in enumerate(row)]
                    )
                    for row in rows
                ],
            ),
        ),
        class_="wide",
    )


def _cells(field: Field, language: Language) -> list[str]:
    return [
        name_text(field, language),
        value_text(field, language),
        number_text(field.score),
        number_text(field.margin),
        alternatives_text(field, language),
    ]


def _share_cells(share: CoverShare, language: Language) -> list[str]:
    return [
        label_name(share.label, language),
        str(share.tiles),
        f"{share.share:.0%}",
        f"{share.low:.0%} - {share.high:.0%}",
        area_text(share),
    ]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
