"""Drawing a flight's observations onto its frames: the annotated video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import OverflightError, SourceError, UsageError
from overflight.runtime.flight.directory import read_record
from overflight.runtime.sources import open_source
from overflight.runtime.sources.image import opencv
from overflight.station.pictures import kept_rows
from overflight.station.summary import read, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from numpy.typing import NDArray

    from overflight.runtime.frame import Frame
    from overflight.runtime.records import Observation
    from overflight.station.summary import Summary

ANNOTATED = "annotated.mp4"
STILLS_PER_S = 2.0
SLIDE_SIZE = (960, 540)
_PANEL = 78  # pixels at the top that carry the writing; at the bottom a player's controls would cover it
_WHITE, _GREY, _DIM = (255, 255, 255), (190, 190, 190), (90, 90, 90)
_GREEN = (122, 200, 120)


def annotate_flight(
    flight: Path, where: str | None = None, *, watch: Callable[[float], None] = lambda share: None
) -> Path:
    """Write the annotated video of any flight: over its source, or over the pictures that the flight keeps.

    ``watch`` receives the share that is done. Raises UsageError where there is neither.
    """
    summary = summarise(flight)
    source = where or summary.record.source
    total = max(1, int(summary.frames[-1]) + 1 if len(summary) else 1)
    if summary.axis != "clock" and (where or Path(source.removeprefix("file://")).expanduser().exists()):
        rate = STILLS_PER_S if summary.axis == "pictures" else _frames_per_s(summary)
        return annotate(flight, source, rate, watch=lambda count: watch(min(1.0, count / total)))
    kept = kept_rows(summary)
    if not kept:
        raise UsageError(
            f"{flight}: its source {source} is not here, and it keeps no pictures; name the source with --source"
        )
    observations = read(flight)[0]
    pictures = ((observations[row], jpeg) for row, jpeg in kept.items())
    return _write(flight, _slides(pictures, frozenset(summary.record.labels)), STILLS_PER_S)


def _frames_per_s(summary: Summary) -> float:
    """Return the recording's own rate, from the frames' numbers and times; 25 where they do not tell."""
    if len(summary) < 2:
        return 25.0
    return float((summary.frames[-1] - summary.frames[0]) / (summary.times[-1] - summary.times[0]))


def _slides(pictures: Iterable[tuple[Observation, bytes]], known: Container[str]) -> Iterator[NDArray[np.uint8]]:
    """Draw small pictures, enlarged so that the writing has room, all of one size."""
    cv2 = opencv()
    for seen, jpeg in pictures:
        small = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        if small is None:
            continue
        scale = min(SLIDE_SIZE[0] / small.shape[1], SLIDE_SIZE[1] / small.shape[0])
        large = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        pixels = np.zeros((SLIDE_SIZE[1], SLIDE_SIZE[0], 3), np.uint8)
        top, left = (SLIDE_SIZE[1] - large.shape[0]) // 2, (SLIDE_SIZE[0] - large.shape[1]) // 2
        pixels[top : top + large.shape[0], left : left + large.shape[1]] = large
        draw(pixels, seen.frame, seen, known)
        yield pixels


def annotate(
    flight: Path, where: str, frames_per_s: float, *, watch: Callable[[int], None] = lambda count: None
) -> Path:
    """Write ``annotated.mp4`` into a flight's directory, from its observations and its source; ``watch`` counts."""
    observations = {seen.frame: seen for seen in read(flight)[0]}
    known = frozenset(read_record(flight).labels)
    source = open_source(where)

    def drawn() -> Iterator[NDArray[np.uint8]]:
        for count, frame in enumerate(source.frames(), start=1):
            pixels = _in_bgr(frame)
            draw(pixels, frame.number, observations.get(frame.number), known)
            yield pixels
            watch(count)

    try:
        return _write(flight, drawn(), frames_per_s)
    finally:
        source.close()


def _write(flight: Path, frames: Iterator[NDArray[np.uint8]], frames_per_s: float) -> Path:
    out = flight / ANNOTATED
    partial = out.with_name(f".{out.stem}.partial.mp4")
    try:
        encode(frames, partial, frames_per_s)
        partial.replace(out)
    except OSError as error:
        raise OverflightError(f"{out}: {error.strerror}; free the disk, the flight itself is kept") from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def _in_bgr(frame: Frame) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame.pixels if frame.order == "bgr" else frame.pixels[:, :, ::-1])


def draw(pixels: NDArray[np.uint8], number: int, seen: Observation | None, known: Container[str]) -> None:
    """Draw one observation into its frame, uint8 BGR ``[height, width, 3]``: label, score bar, rivals, number, age.

    Rivals are the next best of the labels in ``known``: a background is never shown.
    """
    cv2 = opencv()
    width = pixels.shape[1]
    pixels[:_PANEL] = (pixels[:_PANEL] * 0.28).astype(pixels.dtype)
    left, bar, right = 18, 250, width - 150
    _put(pixels, f"frame {number}", (right, 30), 0.55, _GREY)
    if seen is None:
        _put(pixels, "not observed", (left, 34), 0.9, _GREY)
        return
    _put(pixels, f"age {seen.age_ns / 1e6:.0f} ms", (right, 58), 0.55, _GREY)
    _put(pixels, seen.label or "unknown", (left, 34), 0.9, _WHITE if seen.label else _GREY)
    scores = {score.label: score.score if score.share is None else score.share for score in seen.scores}
    sure = scores.pop(seen.label, 0.0) if seen.label else 0.0
    cv2.rectangle(pixels, (left, 48), (left + bar, 58), _DIM, -1)
    if seen.label:
        cv2.rectangle(pixels, (left, 48), (left + round(bar * min(1.0, sure)), 58), _GREEN, -1)
        _put(pixels, f"{sure:.2f}", (left + bar + 10, 59), 0.5, _GREY)
    rivals = [(label, value) for label, value in scores.items() if label in known][:2]
    for place, (label, value) in enumerate(rivals):
        _put(pixels, f"{value:.2f}  {label}", (width // 2 - 40, 30 + 28 * place), 0.5, _GREY)


def _put(pixels: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int]) -> None:
    cv2 = opencv()
    cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1 if scale < 0.8 else 2, cv2.LINE_AA)


def encode(frames: Iterator[NDArray[np.uint8]], out: Path, frames_per_s: float) -> None:
    """Encode BGR frames ``[height, width, 3]`` as H.264, which every browser plays.

    Without PyAV it becomes MPEG-4, which players know and browsers do not: OpenCV's wheels have no other encoder that
    is quick enough (its VP8 takes ten times as long for ten times the bytes).
    """
    try:
        import av
    except ImportError:
        _encode_plainly(frames, out, frames_per_s)
        return
    with av.open(str(out), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_s).limit_denominator(1001))
        stream.options = {"preset": "veryfast", "crf": "26"}
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            even = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]  # 4:2:0 halves both sides
            if not stream.codec_context.is_open:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="bgr24")))
        container.mux(stream.encode())


def _encode_plainly(frames: Iterator[NDArray[np.uint8]], out: Path, frames_per_s: float) -> None:
    cv2 = opencv()
    writer = None
    for pixels in frames:
        if writer is None:
            size = (pixels.shape[1], pixels.shape[0])
            writer = cv2.VideoWriter(str(out), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), frames_per_s, size)
            if not writer.isOpened():
                raise SourceError(f"{out}: OpenCV cannot encode video here; run: pip install 'overflight[station]'")
        writer.write(pixels)
    if writer is not None:
        writer.release()
