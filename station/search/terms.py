"""The terms of a search: sentences and pictures to look for, and those to avoid, as unit embeddings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.export.encode import TextEncoder
    from overflight.export.prompts import Templates
    from overflight.runtime.bundle import Bundle

IDEOGRAPH = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True)
class Terms:
    """Unit embeddings ``[N, D]`` of what is searched for.

    ``texts`` and ``pictures`` are wanted, ``unwanted`` are not. ``names`` says for people what each row stands for.
    ``translated`` holds the queries that the dictionary turned into English.
    """

    texts: NDArray[np.float32]
    pictures: NDArray[np.float32]
    unwanted: NDArray[np.float32]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    translated: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.texts) and not len(self.pictures):
            raise UsageError("nothing to search for; name a text, or a picture with --like")


def read_terms(
    bundle: Bundle,
    texts: Sequence[str],
    *,
    like: Sequence[Path] = (),
    unwanted: Sequence[str] = (),
    templates: Templates,
) -> Terms:
    """Embed the terms with a bundle's towers. Raises UsageError for Chinese words that the dictionary lacks."""
    from overflight.export.encode import TextEncoder
    from overflight.station.search.dictionary import translate

    translated = {text: translate(text) for text in (*texts, *unwanted) if IDEOGRAPH.search(text)}
    wanted = [translated.get(text, text) for text in texts]
    avoided = [translated.get(text, text) for text in unwanted]
    none = np.empty((0, bundle.manifest.width), np.float32)
    text_vectors = unwanted_vectors = none
    if wanted or avoided:
        with TextEncoder(bundle) as encoder:
            vectors = embed_texts(encoder, [*wanted, *avoided], templates)
        text_vectors, unwanted_vectors = vectors[: len(wanted)], vectors[len(wanted) :]
    names = {"texts": tuple(wanted), "pictures": tuple(str(path) for path in like), "unwanted": tuple(avoided)}
    return Terms(text_vectors, embed_pictures(bundle, like) if like else none, unwanted_vectors, names, translated)


def embed_texts(encoder: TextEncoder, texts: Sequence[str], templates: Templates) -> NDArray[np.float32]:
    """Embed each text in every template (a sentence stands for itself) and return the unit means ``[N, D]``."""
    filled = [templates.fill(text) for text in texts]
    vectors = encoder.encode([prompt for prompts in filled for prompt in prompts])
    starts = np.cumsum([0, *(len(prompts) for prompts in filled)])
    means = np.stack([vectors[a:b].mean(axis=0) for a, b in pairwise(starts)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def embed_pictures(bundle: Bundle, paths: Sequence[Path]) -> NDArray[np.float32]:
    """Embed pictures ``[N, D]``; ``picture.jpg#x,y,width,height`` (pixels) is a part of one."""
    from overflight.runtime.overflight import embed
    from overflight.runtime.store import default_engine

    frames = [read_part(path) for path in paths]
    engine = default_engine(bundle)
    try:
        vectors: NDArray[np.float32] = embed(engine, bundle, frames).copy()
        return vectors
    finally:
        engine.close()


def read_part(path: Path) -> NDArray[np.uint8]:
    """Read a picture, or the part that ``#x,y,width,height`` names, as RGB ``[H, W, 3]``. Raises UsageError."""
    from overflight.runtime.sources.image import read_image

    name, _, part = str(path).partition("#") if not path.exists() else (str(path), "", "")
    frame = read_image(name)
    pixels = frame.pixels if frame.order == "rgb" else frame.pixels[:, :, ::-1]
    if not part:
        return np.ascontiguousarray(pixels)
    try:
        x, y, width, height = (int(value) for value in part.split(","))
    except ValueError as error:
        raise UsageError(f"{path}: expected PICTURE#X,Y,WIDTH,HEIGHT in pixels") from error
    tall, wide = pixels.shape[:2]
    if not (0 <= x < x + width <= wide and 0 <= y < y + height <= tall):
        raise UsageError(f"{path}: the part is outside the picture of {wide} x {tall} pixels")
    return np.ascontiguousarray(pixels[y : y + height, x : x + width])
