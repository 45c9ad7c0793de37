"""Uploads: pictures from outside the archive, classified, compared with sentences, or turned into numbers."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.errors import OverflightError
from overflight.station.serve.endpoint import Call, File, RefusedError
from overflight.station.serve.shapes import Classified, ClassifyAsked, FeaturesAsked, LabelScore, Uploaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.frame import Frame
    from overflight.station.serve.desk import Desk

WINDOW_PX = 1024
MOST_WINDOWS = 400


class UploadAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of the file, for errors only."""

    name: str = ""


def post_upload(desk: Desk, call: Call) -> Uploaded:
    """Take a picture; it is looked at before it is kept."""
    if not call.body.stat().st_size:
        raise RefusedError(422, "invalid", "an empty upload; send the bytes of a picture")
    name = desk.keep_upload(call.body)
    path = desk.upload(name)
    try:
        width, height = picture_size(path)
    except OverflightError as error:
        path.unlink(missing_ok=True)
        raise RefusedError(
            422, "picture", str(error).replace(str(path), call.query.name[:80] or "the upload")
        ) from error
    return Uploaded(name, width, height)


def post_classify(desk: Desk, call: Call) -> Classified:
    """Classify a picture with a bank or typed labels, or compare it with sentences."""
    asked: ClassifyAsked = call.body
    path = desk.upload(asked.upload)
    width, height = picture_size(path)
    if asked.sentences:
        texts = desk.embed_texts(asked.sentences)
        vectors = _embed(desk, path)
        best = (vectors @ texts.T).max(axis=0)
        ranked = sorted(zip(asked.sentences, map(float, best), strict=True), key=lambda pair: -pair[1])
        return Classified(width, height, len(vectors), None, tuple(LabelScore(*pair) for pair in ranked))
    bank = _typed_bank(desk, asked.labels) if asked.labels else desk.bank(asked.bank or next(iter(desk.banks()), ""))[1]
    bank.check_fits(desk.bundle.manifest)
    vectors = _embed(desk, path)
    label, scores = _decide(bank, vectors)
    return Classified(width, height, len(vectors), label, scores)


def post_features(desk: Desk, call: Call) -> File:
    """Return unit embeddings of pictures, one row each; a large picture's is the mean of its windows."""
    asked: FeaturesAsked = call.body
    rows = np.stack([_mean(_embed(desk, desk.upload(name))) for name in asked.uploads])
    if asked.format == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, embeddings=rows, names=np.array(asked.uploads), tower=np.array(desk.bundle.manifest.tower))
        return File(buffer.getvalue(), "application/octet-stream", name="features.npz")
    content = {"model": desk.model, "tower": desk.bundle.manifest.tower, "embeddings": [row.tolist() for row in rows]}
    return File(msgspec.json.encode(content), "application/json", name="features.json")


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height. Raises OverflightError for what is no picture, or is too large to decode."""
    from overflight.runtime.sources.image import read_image
    from overflight.runtime.sources.mosaic import Mosaic

    if path.suffix == ".tif":
        mosaic = Mosaic(path)
        try:
            return mosaic.size
        finally:
            mosaic.close()
    frame = read_image(path)
    return frame.pixels.shape[1], frame.pixels.shape[0]


def _embed(desk: Desk, path: Path) -> NDArray[np.float32]:
    """Embed a picture ``[1, D]``, or the windows of a large one ``[N, D]``; once, however often it is asked about."""
    known = desk.embedded.get(path.name)
    if known is None:
        known = np.concatenate([desk.embed_pictures([pixels]) for pixels in _windows(path)])
        desk.embedded[path.name] = known
    return known


def _windows(path: Path) -> Iterator[NDArray[np.uint8] | Frame]:
    """Yield a picture whole, or a TIFF in windows: it may be larger than memory."""
    from overflight.runtime.sources.image import read_image
    from overflight.runtime.sources.mosaic import Mosaic

    if path.suffix != ".tif":
        yield read_image(path)
        return
    width, height = picture_size(path)
    mosaic = Mosaic(path, max(WINDOW_PX, math.ceil(math.sqrt(width * height / MOST_WINDOWS))))
    try:
        yield from mosaic.frames()
    finally:
        mosaic.close()


def _typed_bank(desk: Desk, labels: tuple[str, ...]) -> LabelBank:
    """Make a bank of typed labels: they exclude each other, and one of them must reach the tower's own score."""
    from overflight.runtime.bank import SCHEMA, BankHeader, Label, LabelBank

    names = tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))
    if not names:
        raise RefusedError(422, "invalid", "no labels; type at least one")
    manifest = desk.bundle.manifest
    header = BankHeader(
        schema=SCHEMA,
        name="typed",
        model=manifest.name,
        tower=manifest.tower,
        activation=manifest.activation,
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        labels=tuple(Label(name) for name in names),
    )
    return LabelBank.make(header, desk.embed_texts(names))


def _decide(bank: LabelBank, vectors: NDArray[np.float32]) -> tuple[str | None, tuple[LabelScore, ...]]:
    """Return the label of the window that shows one most clearly, and each label's best score."""
    matcher, decider = Matcher(bank), Decider(bank)
    best: dict[str, float] = {}
    label, logit = None, -math.inf
    names = [one.text for one in bank.header.labels]
    shown = [row for row, one in enumerate(bank.header.labels) if not one.background]
    for vector in vectors:
        match = matcher.match(vector)
        scores = np.where(np.isnan(match.shares), match.scores, match.shares)
        for row in shown:
            best[names[row]] = max(best.get(names[row], 0.0), float(scores[row]))
        found = decider.decide(match).label
        if found is not None and match.logits[names.index(found)] > logit:
            label, logit = found, float(match.logits[names.index(found)])
    ordered = sorted(best.items(), key=lambda pair: -pair[1])
    return label, tuple(LabelScore(name, score) for name, score in ordered)


def _mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)
