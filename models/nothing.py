"""Made-up pictures that show no ground: noise, cards, plain colours, text; what a camera without a view delivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from overflight.runtime.sources.testcard import TestCard

if TYPE_CHECKING:
    from collections.abc import Callable

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 360, 640


def _noise(random: np.random.Generator) -> Pixels:
    spread = random.uniform(5, 90)
    channels = int(random.choice([1, 3]))
    pixels = random.normal(random.uniform(40, 210), spread, (HEIGHT, WIDTH, channels))
    grey = np.asarray(pixels.clip(0, 255), np.uint8)
    return np.array(np.broadcast_to(grey, (HEIGHT, WIDTH, 3)))


def _even_noise(random: np.random.Generator) -> Pixels:
    height, width = int(random.integers(60, 1100)), int(random.integers(80, 1900))
    return random.integers(0, 256, (height, width, 3), np.uint8)


def _soft_noise(random: np.random.Generator) -> Pixels:
    coarse = random.integers(0, 256, (int(random.integers(3, 60)), int(random.integers(4, 100)), 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def _card(random: np.random.Generator) -> Pixels:
    size = f"{random.integers(64, 1280)}x{random.integers(48, 720)}"
    *_, last = TestCard.parse(f"test://?frames={random.integers(1, 60)}&fps=0&size={size}").frames()
    return np.array(last.pixels)


def _plain(random: np.random.Generator) -> Pixels:
    return np.full((HEIGHT, WIDTH, 3), random.integers(0, 256, 3), np.uint8) + random.integers(0, 5, 3).astype(np.uint8)


def _bars(random: np.random.Generator) -> Pixels:
    colours = random.integers(0, 256, (1, int(random.integers(3, 12)), 3), np.uint8)
    pixels = cv2.resize(colours, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return np.asarray(pixels if random.random() < 0.6 else pixels.transpose(1, 0, 2), np.uint8)


def _gradient(random: np.random.Generator) -> Pixels:
    corners = random.integers(0, 256, (2, 2, 3)).astype(np.float32)
    return np.asarray(cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)


def _text(random: np.random.Generator) -> Pixels:
    dark = random.random() < 0.5
    pixels = np.full((HEIGHT, WIDTH, 3), random.integers(0, 60) if dark else random.integers(190, 256), np.uint8)
    ink = (235, 235, 235) if dark else (20, 20, 20)
    step = int(random.integers(16, 60))
    for line in range(step, HEIGHT, step):
        words = "".join(chr(int(c)) for c in random.integers(48, 123, int(random.integers(8, 60))))
        cv2.putText(pixels, words, (int(random.integers(0, 60)), line), 0, step / 40, ink, int(random.integers(1, 3)))
    return pixels


def _pattern(random: np.random.Generator) -> Pixels:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    size = int(random.integers(2, 90))
    on = (columns // size + (rows // size if random.random() < 0.5 else 0)) % 2
    two = random.integers(0, 256, (2, 3), np.uint8)
    return np.asarray(two[on], np.uint8)


KINDS: dict[str, Callable[[np.random.Generator], Pixels]] = {
    "noise": _noise,
    "even noise": _even_noise,
    "soft noise": _soft_noise,
    "test card": _card,
    "plain colour": _plain,
    "colour bars": _bars,
    "gradient": _gradient,
    "text": _text,
    "pattern": _pattern,
}


def make(kind: str, count: int, seed: int) -> list[Pixels]:
    """Return ``count`` pictures uint8 ``[H, W, 3]`` RGB of one kind, the same for the same seed."""
    random = np.random.default_rng([seed, *kind.encode()])
    return [KINDS[kind](random) for _ in range(count)]
