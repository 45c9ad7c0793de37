"""A source that needs no camera: a moving test card, with the faults of a bad day on request."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Kind = Literal["stall", "freeze", "torn", "black", "white", "disconnect", "resize", "burst", "clock"]
_EXPECTED = "expected test://?frames=250&fps=25&size=1280x720&faults=stall@50:3s,black@170:5"
_MOST_PIXELS = 1 << 24  # 4,096 x 4,096; a card of this size takes 100 MB
# What may follow ``kind@frame``, and what is meant where nothing does.
_ARGUMENTS: dict[Kind, tuple[str, str]] = {
    "stall": (r"(\d{1,9}(?:\.\d{1,9})?)s", "3s"),
    "freeze": (r"(\d{1,9})", "20"),
    "torn": (r"(\d{1,9})", "1"),
    "black": (r"(\d{1,9})", "1"),
    "white": (r"(\d{1,9})", "1"),
    "disconnect": (r"(\d{1,9}(?:\.\d{1,9})?)s", "0s"),
    "resize": (r"(\d{1,5}x\d{1,5})", "640x480"),
    "burst": (r"(\d{1,9})", "10"),
    "clock": (r"([+-]\d{1,9}(?:\.\d{1,9})?)s", "+3600s"),
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong from frame ``at`` on: for ``length`` frames, ``seconds``, or in another ``size``."""

    kind: Kind
    at: int
    length: int = 0
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``kind@frame`` or ``kind@frame:argument``. Raises ValueError."""
        kind, _, rest = text.partition("@")
        at, _, given = rest.partition(":")
        known = next((name for name in get_args(Kind) if name == kind), None)
        if known is None or not at.isdigit():
            raise ValueError(f"fault {text!r} is none of {', '.join(f'{name}@N' for name in get_args(Kind))}")
        pattern, usual = _ARGUMENTS[known]
        found = re.fullmatch(pattern, given or usual)
        if found is None:
            raise ValueError(f"fault {text!r}: expected {kind}@{at}:{usual}")
        match known:
            case "stall" | "disconnect" | "clock":
                return cls(known, int(at), seconds=float(found[1]))
            case "resize":
                return cls(known, int(at), size=_size(found[1]))
            case _:
                return cls(known, int(at), length=int(found[1]))

    def covers(self, number: int) -> bool:
        """Whether it spoils this frame."""
        return self.at <= number < self.at + self.length


class TestCard:
    """``test://?frames=250&fps=25&size=1280x720``: a noisy gradient that moves, at ``fps`` in real time.

    Without ``frames`` it never ends. ``fps=0`` delivers every frame as fast as it is read, like a file. ``faults`` is a
    list of ``kind@frame:argument``: ``stall@50:3s`` says nothing for three seconds, ``freeze@120:20`` repeats a picture
    20 times, ``torn@160:1``, ``black@170:5`` and ``white@180:1`` spoil so many, ``disconnect@200:0s`` fails and refuses
    to be opened for so long, ``resize@250:640x480`` goes on in another size, ``burst@300:30`` delivers 30 at once, and
    ``clock@350:+3600s`` sets the wall clock. What was opened may be opened again: the card goes on where it was.
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(
        self, frames: int | None, fps: float, width: int, height: int, faults: tuple[Fault, ...] = (), name: str = ""
    ) -> None:
        self.name = name or f"test://?{'' if frames is None else f'frames={frames}&'}fps={fps:g}&size={width}x{height}"
        self.live = fps > 0
        self.count = frames
        self._interval_ns = int(1e9 / fps) if fps else 0
        self._size = (width, height)
        self._scene = _scene(width, height)
        self._faults = faults
        self._number = 0
        self._away_until_ns = 0

    @classmethod
    def parse(cls, where: str) -> TestCard:
        """Read the options. Raises UsageError for one that is not understood."""
        given = dict(parse_qsl(urlsplit(where).query.replace("+", "%2B"), keep_blank_values=True))
        try:
            frames = int(given.pop("frames")) if "frames" in given else None
            fps = float(given.pop("fps", "25"))
            width, height = _size(given.pop("size", "1280x720"))
            faults = tuple(Fault.parse(part) for part in given.pop("faults", "").split(",") if part)
        except ValueError as error:
            raise UsageError(f"{where}: {error}; {_EXPECTED}") from error
        if given or not 0 <= fps < float("inf"):
            raise UsageError(f"{where}: not understood; {_EXPECTED}")
        return cls(frames, fps, width, height, faults, where if faults else "")

    def frames(self) -> Iterator[Frame]:
        """Yield the card, a little further each time. Raises SourceError where a disconnection was asked for."""
        if time.monotonic_ns() < self._away_until_ns:
            raise SourceError(f"{self.name}: disconnected, as asked for")
        due_ns = time.monotonic_ns()
        while self.count is None or self._number < self.count:
            number = self._number
            self._number += 1  # before anything fails: what is opened again goes on behind it
            due_ns = self._wait(number, due_ns)
            self._spoil_the_line(number)
            yield Frame(self._pixels(number), number, time.monotonic_ns(), self._utc_ns(number))

    def close(self) -> None:
        """Nothing is held open."""

    def _wait(self, number: int, due_ns: int) -> int:
        bursts = any(fault.kind == "burst" and fault.at < number < fault.at + fault.length for fault in self._faults)
        if not self._interval_ns or bursts:
            return due_ns
        now_ns = time.monotonic_ns()
        due_ns = max(due_ns, now_ns - self._interval_ns) + self._interval_ns  # after a stall no frame is made up for
        time.sleep(max(0, due_ns - now_ns) / 1e9)
        return due_ns

    def _spoil_the_line(self, number: int) -> None:
        for fault in self._faults:
            if fault.at == number and fault.kind == "stall":
                time.sleep(fault.seconds)
            if fault.at == number and fault.kind == "disconnect":
                self._away_until_ns = time.monotonic_ns() + int(fault.seconds * 1e9)
                raise SourceError(f"{self.name}: disconnected at frame {number}, as asked for")

    def _pixels(self, number: int) -> NDArray[np.uint8]:
        sizes = [fault.size for fault in self._faults if fault.kind == "resize" and fault.at <= number]
        if sizes and sizes[-1] != self._size:
            self._size, self._scene = sizes[-1], _scene(*sizes[-1])
        spoilt = {fault.kind: fault for fault in self._faults if fault.covers(number)}
        if "freeze" in spoilt:
            number = max(0, spoilt["freeze"].at - 1)
        width, height = self._size
        shift = number * 7 % width
        pixels = self._scene[:, shift : shift + width]
        if "torn" in spoilt:
            pixels = pixels.copy()
            pixels[height * 5 // 8 :] = pixels[height * 5 // 8]
        if "black" in spoilt or "white" in spoilt:
            return np.full_like(pixels, 0 if "black" in spoilt else 255)
        return pixels

    def _utc_ns(self, number: int) -> int:
        jumps = sum(fault.seconds for fault in self._faults if fault.kind == "clock" and fault.at <= number)
        return time.time_ns() + int(jumps * 1e9)


def _size(text: str) -> tuple[int, int]:
    width, height = (int(part) for part in text.split("x"))
    if width < 1 or height < 1 or width * height > _MOST_PIXELS:
        raise ValueError(f"size {text} is no picture of 1 to {_MOST_PIXELS} pixels")
    return width, height


def _scene(width: int, height: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 64, (height, width * 2, 3), np.uint8)
    ramp = np.linspace(0, 191, width * 2).astype(np.uint8)
    scene: NDArray[np.uint8] = noise + ramp[None, :, None]
    return scene
