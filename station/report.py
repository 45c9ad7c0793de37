"""The report of a flight: one self-contained page that a person reads after landing."""

from __future__ import annotations

import base64
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from overflight.runtime.bank import LabelBank
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import OverflightError
from overflight.runtime.flight.directory import BANKS
from overflight.station.chart import colours, extent, fold, histogram, lasting, moment, three_digits, timeline
from overflight.station.coverage_chapter import coverage_chapter
from overflight.station.event_table import PICTURED, tabulate_events
from overflight.station.map import draw_map
from overflight.station.page import data, page, tag
from overflight.station.pictures import fetch
from overflight.station.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from overflight.station.chart import Columns
    from overflight.station.summary import LabelSummary, Summary

REPORT = "report.html"
VIDEOS = ("annotated.webm", "annotated.mp4")
_LABELS_PICTURED = 12
_PICTURES_PER_LABEL = 4
_UNSEEN_NAMED = 40
_BANKS_NAMED = 2  # in the header; all are in a table


def write_report(flight: Path, out: Path | None = None, chapters: Sequence[Element] = ()) -> Summary:
    """Write a flight's report, ``report.html`` inside it when ``out`` is None, and return what it is made of.

    ``chapters`` are further sections, before the flight's losses and origin.
    """
    summary = summarise(flight)
    out = out or flight / REPORT
    try:
        write_atomically(out, make_report(summary, video=_video(flight, out), chapters=chapters))
    except OSError as error:
        raise OverflightError(f"{out}: {error.strerror}; name a file that can be written with -o") from error
    return summary


def make_report(summary: Summary, *, video: str | None = None, chapters: Sequence[Element] = ()) -> bytes:
    """Make the page; ``video`` is where the annotated video lies, as the page shall address it."""
    source = title(summary.record.source)
    body: list[Element | None] = [_header(summary, source), _figures(summary)]
    if len(summary):
        columns = fold(summary)
        colour = colours(summary)
        picked = {label.label: surest(summary, label) for label in _pictured(summary)}
        began = [event.first for event in summary.events[:PICTURED]]
        jpegs = fetch(summary, {*began, *(row for rows in picked.values() for row in rows)})
        body += [_flown(summary, columns, video), draw_map(summary, colour), coverage_chapter(summary)]
        body += [tabulate_events(summary, colour, jpegs)]
        body += [_labels(summary), _pictures(summary, picked, jpegs), _latency(summary), _banks(summary)]
    body += [*chapters, *_losses(summary), _origin(summary)]
    return page(f"{source} · flight report", [tag("main", body)], style="report.css", script="report.js")


def title(source: str) -> str:
    """Return what to call a source: a file or folder by its name, a camera or a stream by its kind and address."""
    scheme, _, rest = source.partition("://")
    if not rest and "://" not in source:
        name = Path(source).name or source
        return f"Camera {name}" if source.startswith("/dev/") else name
    address = rest.partition("?")[0].rpartition("@")[2].rstrip("/")
    match scheme:
        case "file":
            return Path(address).name or address
        case "test":
            return "Test picture"
        case "csi" | "v4l2":
            return f"Camera {address.removeprefix('/dev/')}"
        case "gst":
            return "GStreamer pipeline"
        case _:
            return f"{scheme.upper()} stream {address.partition('/')[0]}".rstrip()


def surest(summary: Summary, label: LabelSummary, count: int = _PICTURES_PER_LABEL) -> list[int]:
    """Pick a label's surest observations, not all from one moment, in the order they were flown."""
    rows = np.array([row for row, answer in enumerate(summary.answers) if answer == label.label], np.int64)
    if not len(rows):  # present, but never the best: its events show it
        return []
    apart = extent(summary) / 25
    picked: list[int] = []
    for row in rows[np.argsort(-summary.scores[rows], kind="stable")]:
        if all(abs(summary.times[row] - summary.times[other]) >= apart for other in picked):
            picked.append(int(row))
        if len(picked) == count:
            break
    return sorted(picked)


def _header(summary: Summary, source: str) -> Element:
    record = summary.record
    when: list[Element | str] = [_time(record.started_utc_ns)]
    if summary.axis != "clock":  # a recording is evaluated at another time than it was taken
        when = ["Evaluated ", *when]
        if summary.taken_utc_ns is not None:
            when = ["Taken ", _time(summary.taken_utc_ns), "; evaluated ", *when[1:]]
    banks = [_bank(summary, row) for row in summary.bank_rows[:_BANKS_NAMED]]
    later = "".join(f", then “{'another' if bank is None else bank.header.name}”" for bank in banks)
    more = len(summary.bank_rows) - len(banks)
    later += f" and {more} more" if more else ""
    return tag(
        "header",
        tag("p", "Flight report", class_="kind"),
        tag("h1", source, title=record.source),
        tag("p", when, f" on {record.host} with {record.model}, {record.engine}, labels “{record.bank}”{later}"),
        tag("p", _in_words(summary), class_="lead"),
        tag("p", *warnings, class_="warning") if (warnings := _warnings(summary)) else None,
    )


def _time(utc_ns: int) -> Element:
    at = datetime.fromtimestamp(utc_ns / 1e9, timezone.utc)
    return tag("time", at.strftime("%d %B %Y, %H:%M UTC").lstrip("0"), datetime=at.isoformat())


def _in_words(summary: Summary) -> str:
    if not len(summary):
        return "No frame was observed."
    known = [label for label in summary.labels if label.label is not None]
    unknown = 1 - sum(label.share for label in known)
    parts = [f"{label.label} {label.share:.0%}" for label in known[:3] if label.share >= 0.005]
    text = f"Mostly seen: {', '.join(parts)}" if parts else "None of the labels was seen"
    of = "of the pictures" if summary.axis == "pictures" else "of the time"
    return f"{text} {of if parts else ''}".rstrip() + (f"; unknown {unknown:.0%}." if unknown >= 0.005 else ".")


def _warnings(summary: Summary) -> list[str]:
    record, found = summary.record, []
    match record.ended_because:
        case None:
            found.append("This flight has no recorded end: it is still going on, or the power went away. ")
        case "source ended" | "stopped":
            pass
        case because:
            found.append(f"Ended because: {because}. ")
    if summary.unreadable:
        lines = "line" if summary.unreadable == 1 else "lines"
        found.append(f"{summary.unreadable} torn {lines} of the observations could not be read. ")
    if record.unrecorded:
        counts = ", ".join(f"{count} {what}" for what, count in record.unrecorded.items())
        found.append(f"The disk did not take {counts}. ")
    return found


def _figures(summary: Summary) -> Element:
    known = [label for label in summary.labels if label.label is not None]
    figures = [(f"{len(summary):,}", "frames observed"), (f"{sum(summary.dropped.values()):,}", "frames lost")]
    if summary.skipped:
        figures.append((f"{sum(summary.skipped.values()):,}", "skipped on request"))
    if len(summary):
        if summary.axis != "pictures":
            figures.append((lasting(summary.axis, extent(summary)), "long"))
        if summary.frames_per_s is not None:
            figures.append((f"{summary.frames_per_s:.1f}", "frames a second"))
        figures.append((f"{three_digits(summary.median_age_ms)} ms", "median age"))
        figures.append((f"{len(summary.events):,}", "events"))
        figures.append((f"{len(known)} of {len(_all_labels(summary))}", "labels seen"))
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for value, name in figures], class_="figures")


def _all_labels(summary: Summary) -> list[str]:
    """Return the labels of every bank that was used; of a bank that is not kept, those that were seen."""
    seen = (label.label for label in summary.labels if label.label is not None)
    later = (bank for row in summary.bank_rows if (bank := _bank(summary, row)) is not None)
    brought = (label.text for bank in later for label in bank.header.labels if not label.background)
    return list(dict.fromkeys((*summary.record.labels, *brought, *seen)))


def _flown(summary: Summary, columns: Columns, video: str | None) -> Element:
    shown = {None: -1, **{label.label: place for place, label in enumerate(summary.labels)}}
    rows = columns.rows
    carried = {
        "labels": [label.label for label in summary.labels],
        "colours": [colours(summary)[label.label] for label in summary.labels],
        "starts": [round(float(start), 5) for start in columns.starts],
        "label": [shown[summary.answers[row]] for row in rows],
        "moment": [moment(summary, row) for row in rows],
        "frame": [int(summary.frames[row]) for row in rows],
        "score": [round(float(summary.scores[row]), 3) for row in rows],
        "age": [round(float(summary.age_ms[row]), 1) for row in rows],
        "begins": float(summary.times[0]),
        "extent": extent(summary),
        "seekable": summary.axis == "recording",
    }
    player = None
    if video is not None:
        player = tag(
            "video", src=video, controls="controls", preload="metadata", muted="muted", playsinline="playsinline"
        )
    lost = "; a red line is where frames were lost" if columns.lost.any() else ""
    return tag(
        "section",
        tag("h2", "Timeline"),
        player,
        timeline(summary, columns),
        tag("p", f"Height is the score of the answer; grey is “unknown”{lost}.", id="readout"),
        data("flight", carried),
        class_="flown",
    )


def _labels(summary: Summary) -> Element:
    unit = "Pictures" if summary.axis == "pictures" else "Time"
    colour = colours(summary)
    head = [
        ("Label", None),
        ("Share", None),
        (unit, "number phone-extra"),
        ("First seen", "number"),
        ("Last seen", "number"),
    ]
    head += [("Present", "number phone-extra"), ("Events", "number phone-extra")]
    head += [("Longest", "number extra"), ("Frames", "number extra")]
    head += [("Best score", "number extra")]
    rows = [
        tag(
            "tr",
            tag(
                "th",
                tag("i", class_="dot", style=f"background:{colour[label.label]}"),
                label.label or "unknown",
                scope="row",
            ),
            tag("td", _bar(label.share, colour[label.label]), f"{label.share:.1%}", class_="share"),
            [
                tag("td", value, class_=kind)
                for value, kind in (
                    (lasting(summary.axis, label.weight), "number phone-extra"),
                    (moment(summary, label.first), "number moment"),
                    (moment(summary, label.last), "number moment"),
                    (lasting(summary.axis, label.shown), "number phone-extra"),
                    (_present(summary, label), "number phone-extra"),
                    (lasting(summary.axis, label.longest), "number extra"),
                    (f"{label.count:,}", "number extra"),
                    (f"{label.best:.2f}" if label.label is not None and label.best else "-", "number extra"),
                )
            ],
        )
        for label in summary.labels
    ]
    seen = {label.label for label in summary.labels}
    unseen = [label for label in _all_labels(summary) if label not in seen]
    table = tag(
        "table",
        tag("thead", tag("tr", [tag("th", name, class_=kind, scope="col") for name, kind in head])),
        tag("tbody", rows),
    )
    more = f" and {len(unseen) - _UNSEEN_NAMED:,} more" if len(unseen) > _UNSEEN_NAMED else ""
    never = tag("p", f"Never seen: {', '.join(unseen[:_UNSEEN_NAMED])}{more}.", class_="note") if unseen else None
    return tag("section", tag("h2", "Labels"), tag("div", table, class_="wide"), never)


def _present(summary: Summary, label: LabelSummary) -> str:
    return f"{label.events} in {lasting(summary.axis, label.present)}" if label.events else "-"


def _bar(share: float, colour: str) -> Element:
    return tag("span", tag("i", style=f"width:{100 * share:.1f}%;background:{colour}"), class_="bar")


def _pictured(summary: Summary) -> list[LabelSummary]:
    return [label for label in summary.labels if label.label is not None and label.count][:_LABELS_PICTURED]


def _pictures(summary: Summary, picked: dict[str | None, list[int]], jpegs: dict[int, bytes]) -> Element | None:
    if not any(row in jpegs for rows in picked.values() for row in rows):
        note = "Neither the source nor the flight has pictures of these frames."
        return tag("section", tag("h2", "Surest frames"), tag("p", note, class_="note")) if picked else None
    groups = []
    for label, rows in picked.items():
        figures = [_picture(summary, row, jpegs[row], label or "") for row in rows if row in jpegs]
        if figures:
            dot = tag("i", class_="dot", style=f"background:{colours(summary)[label]}")
            groups.append(tag("div", tag("h3", dot, label), tag("div", figures, class_="pictures"), class_="group"))
    return tag("section", tag("h2", "Surest frames"), groups)


def _picture(summary: Summary, row: int, jpeg: bytes, label: str) -> Element:
    source = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    at = f"{summary.times[row]:.3f}" if summary.axis == "recording" else None
    caption = tag("figcaption", tag("b", f"{summary.scores[row]:.2f}"), f" {moment(summary, row)}")
    return tag("figure", tag("img", src=source, alt=f"{label}, frame {summary.frames[row]}", data_at=at), caption)


def _latency(summary: Summary) -> Element:
    parts = {"age of the decision": summary.age_ms, **summary.costs_ms}
    head = ["", "median", "p95", "p99", "slowest"]
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            [tag("td", three_digits(value), class_="number") for value in _spread(values)],
        )
        for name, values in parts.items()
    ]
    table = tag(
        "table",
        tag("thead", tag("tr", [tag("th", name, class_="number" if name else None, scope="col") for name in head])),
        tag("tbody", rows),
    )
    note = "Milliseconds. Age runs from a frame's capture to its decision; resize, engine and match are parts of it."
    return tag("section", tag("h2", "Latency"), histogram(summary.age_ms), table, tag("p", note, class_="note"))


def _spread(values_ms: NDArray[np.float64]) -> list[float]:
    return [*(float(value) for value in np.percentile(values_ms, (50, 95, 99))), float(values_ms.max())]


def _banks(summary: Summary) -> Element | None:
    """List the label banks that were used one after another; None where it was one from start to end."""
    if not summary.bank_rows:
        return None
    rows = [
        tag("tr", tag("td", moment(summary, row), class_="number"), tag("th", _bank_name(summary, row), scope="row"))
        for row in (0, *summary.bank_rows)
    ]
    head = tag("thead", tag("tr", tag("th", "From", class_="number", scope="col"), tag("th", "Bank", scope="col")))
    return tag("section", tag("h2", "Label banks"), tag("table", head, tag("tbody", rows), class_="narrow"))


def _bank_name(summary: Summary, row: int) -> str:
    bank = _bank(summary, row)
    if bank is None:
        return summary.banks[row]
    reported = sum(not label.background for label in bank.header.labels)
    return f"{bank.header.name}, {reported:,} labels ({bank.sha256[:8]})"


def _bank(summary: Summary, row: int) -> LabelBank | None:
    """Load the bank that a row was matched with; None where it is not kept."""
    try:
        return LabelBank.load(summary.flight / BANKS / f"{summary.banks[row]}.safetensors")
    except (OverflightError, OSError):
        return None


def _losses(summary: Summary) -> list[Element]:
    skipped = _counts("Frames skipped on request", summary.skipped) if summary.skipped else None
    return [part for part in (_counts("Frames lost", summary.dropped), skipped) if part is not None]


def _counts(name: str, counts: dict[str, int]) -> Element:
    if not counts:
        return tag("section", tag("h2", name), tag("p", "None."))
    rows = [
        tag("tr", tag("th", reason, scope="row"), tag("td", f"{count:,}", class_="number"))
        for reason, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return tag("section", tag("h2", name), tag("table", tag("tbody", rows), class_="narrow"))


def _origin(summary: Summary) -> Element:
    record = summary.record
    facts = {
        "Source": record.source,
        "Model": record.model,
        "Bundle": record.bundle,
        "Engine": f"{record.engine} {record.engine_sha256}",
        "Label bank": f"{record.bank} ({len(record.labels):,} labels) {record.bank_sha256}",
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Host": record.host,
        "Ended": record.ended_because or "not recorded",
    }
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    return tag("section", tag("h2", "Origin"), tag("dl", rows, class_="facts"))


def _video(flight: Path, out: Path) -> str | None:
    """Where the annotated video lies, seen from the report; None where there is none."""
    for name in VIDEOS:
        if (flight / name).is_file():
            return quote(Path(os.path.relpath(flight / name, out.parent)).as_posix())
    return None
