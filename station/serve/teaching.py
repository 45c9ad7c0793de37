"""Labels from choices: fit one on rows of the archive, see what it finds, keep it in a bank, send it to an aircraft."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.export.examples import FEWEST_BACKGROUND, ExampleLabel, label_from_examples
from overflight.runtime.bank import SCHEMA, BankHeader, Label, LabelBank
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.signatures.signature_files import signature_path
from overflight.station.search.matrix import Matrix
from overflight.station.serve.endpoint import Call, File, RefusedError
from overflight.station.serve.rows import seen_rows
from overflight.station.serve.shapes import BankAsked, BankInfo, Choices, CurvePoint, Histogram, Taught

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.station.archive import ArchivedFlight
    from overflight.station.serve.desk import Desk

THRESHOLD = 0.5
BINS = 40
PREVIEW = 48
BACKGROUND_ROWS = 200  # of the archive, taken at random: what is looked for is rare in it
_PLAIN = re.compile(r"[^\w.-]+")


def post_teach(desk: Desk, call: Call) -> Taught:
    """Fit a label on chosen rows and say how good it is."""
    asked: Choices = call.body
    made, assumed = _fit(desk, asked.more, asked.less, asked.text)
    flights = [one for one in desk.flights() if one.tower == desk.bundle.manifest.tower]
    scores = [_scores(desk, flight, made) for flight in flights]
    joined = np.concatenate(scores) if scores else np.empty(0, np.float32)
    counts, edges = np.histogram(joined, bins=BINS, range=(0.0, 1.0))
    rows = np.concatenate([np.arange(one.first, one.first + one.rows) for one in flights])
    top = np.argsort(-joined)[:PREVIEW]
    by_row = {int(rows[place]): float(joined[place]) for place in top}
    shown = [msgspec.structs.replace(one, score=by_row[one.row]) for one in seen_rows(desk, list(by_row))]
    found = made.measured
    return Taught(
        method=found.method,
        auroc=found.auroc,
        recall=found.recall,
        precision=found.precision,
        precision_low=found.precision_low,
        precision_high=found.precision_high,
        threshold=THRESHOLD,
        curve=tuple(CurvePoint(point.shots, point.auroc, point.spread) for point in found.curve),
        histogram=Histogram(tuple(map(float, edges)), tuple(map(int, counts))),
        hours=_hours(desk, flights),
        positives=len(asked.more),
        preview=tuple(shown),
        note=f"{assumed} rows of the archive, taken at random, were assumed not to show it" if assumed else None,
    )


def post_bank(desk: Desk, call: Call) -> BankInfo:
    """Keep a label in a bank of the archive."""
    asked: BankAsked = call.body
    made, _ = _fit(desk, asked.more, asked.less, asked.text)
    vectors = desk.vectors_of(asked.more)
    hashes = tuple(hashlib.sha256(one.tobytes()).hexdigest()[:16] for one in vectors)
    label = Label(
        asked.name,
        threshold=asked.threshold,
        logit_scale=made.logit_scale,
        logit_bias=made.logit_bias,
        examples=hashes,
    )
    manifest = desk.bundle.manifest
    if asked.into is not None:
        _, base = desk.bank(asked.into)
        if base.header.activation == "softmax":
            raise UsageError("this bank's labels exclude each other (softmax); keep the new label in a bank of its own")
        kept = [row for row, one in enumerate(base.header.labels) if one.text != asked.name]
        labels = (*(base.header.labels[row] for row in kept), label)
        header = msgspec.structs.replace(base.header, labels=labels, name=asked.name)
        matrix = np.concatenate([base.vectors[kept], made.vector[None]])
    else:
        header = BankHeader(
            schema=SCHEMA,
            name=asked.name,
            model=manifest.name,
            tower=manifest.tower,
            activation="sigmoid",
            logit_scale=manifest.logit_scale,
            logit_bias=manifest.logit_bias,
            labels=(label,),
        )
        matrix = made.vector[None]
    path = desk.archive.directory / "banks" / f"{_PLAIN.sub('-', asked.name).strip('-.') or 'label'}.safetensors"
    path.parent.mkdir(exist_ok=True)
    signature_path(path).unlink(missing_ok=True)  # it was another bank's
    LabelBank.make(header, matrix).save(path)
    return describe_bank(f"saved.{path.stem}", path)


def get_bank_file(desk: Desk, call: Call) -> File:
    """Return a label bank's file."""
    path, _ = desk.bank(call.path["id"])
    return File(path.read_bytes(), "application/octet-stream", name=path.name)


def describe_banks(banks: Mapping[str, Path]) -> tuple[tuple[BankInfo, ...], tuple[str, ...]]:
    """Return the banks, and for each that cannot be read the reason: one damaged file must not close the page."""
    found: list[BankInfo] = []
    unread: list[str] = []
    for name, path in banks.items():
        try:
            found.append(describe_bank(name, path))
        except OverflightError as error:
            unread.append(str(error).replace(str(path), path.name))
    return tuple(found), tuple(unread)


def describe_bank(name: str, path: Path) -> BankInfo:
    """Return what the page shows of a bank; a machine that trusts keys needs its signature, made elsewhere."""
    from overflight.runtime.signatures.trust import TrustedKeys

    bank = LabelBank.load(path)
    signed = signature_path(path).is_file()
    wanted = bool(TrustedKeys.load().keys)
    return BankInfo(
        name,
        bank.header.name,
        bank.sha256,
        tuple(label.text for label in bank.header.labels if not label.background),
        f"/api/banks/{name}/file",
        signed=signed,
        sign=None if signed else f"overflight sign {path.name} --key KEY",
        wants_signature=wanted and not signed,
    )


def _fit(desk: Desk, more: tuple[int, ...], less: tuple[int, ...], text: str | None) -> tuple[ExampleLabel, int]:
    """Fit a label; where few rows were refused, rows taken at random stand for the background. Returns how many."""
    if set(more) & set(less):
        raise RefusedError(422, "invalid", "a row is both an example and none; take it back from one of the two")
    chosen = set(more) | set(less)
    flights = [one for one in desk.flights() if one.tower == desk.bundle.manifest.tower]
    every = (
        np.concatenate([np.arange(one.first, one.first + one.rows) for one in flights])
        if flights
        else np.empty(0, np.int64)
    )
    others = [int(row) for row in np.random.default_rng(0).permutation(every) if int(row) not in chosen]
    assumed = others[:BACKGROUND_ROWS]
    if len(less) + len(assumed) < FEWEST_BACKGROUND:
        raise UsageError(f"{len(less)} rows that do not show it; choose at least {FEWEST_BACKGROUND}")
    background = desk.vectors_of([*less, *assumed])
    vector = desk.embed_texts([text])[0] if text else None
    return label_from_examples(desk.vectors_of(more), background, text=vector), len(assumed)


def _scores(desk: Desk, flight: ArchivedFlight, made: ExampleLabel) -> NDArray[np.float32]:
    (cosines,) = Matrix(desk.archive, cache_bytes=0).cosines(flight, made.vector[None])
    logits = np.maximum(np.exp(made.logit_scale) * cosines + made.logit_bias, -80)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _hours(desk: Desk, flights: list[ArchivedFlight]) -> float | None:
    """Return the recorded time of flights whose frames have one."""
    total_ns = 0
    with desk.archive.read() as connection:
        for flight in flights:
            first, last = connection.execute(
                "SELECT min(coalesce(media_ns, utc_ns)), max(coalesce(media_ns, utc_ns)) FROM rows "
                "WHERE id >= ? AND id < ?",
                (flight.first, flight.first + flight.rows),
            ).fetchone()
            total_ns += (last - first) if first is not None else 0
    return total_ns / 3.6e12 or None
