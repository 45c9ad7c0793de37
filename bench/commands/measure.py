"""The commands of ``overflight bench`` that measure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.bench.row import Row
    from overflight.bench.subject import Clock

_PATH: Any = click.Path(path_type=Path)


def _measuring(*, bundle: bool = True, threads: bool = True, plan: bool = True) -> Callable[[Any], Any]:
    """Add the options that measuring commands share."""
    options = [
        click.option("--json", "as_json", is_flag=True, help="Print rows as JSON lines, raw samples included."),
        click.option("--out", type=_PATH, help="Add the rows to this record file (.jsonl)."),
    ]
    if plan:
        options.append(
            click.option(
                "--seconds",
                type=Finite(min=0, min_open=True),
                default=30.0,
                show_default=True,
                help="How long to sample.",
            )
        )
        options.append(
            click.option(
                "--rounds", type=click.IntRange(1), default=20, show_default=True, help="The least number of turns."
            )
        )
    if threads:
        options.append(click.option("--threads", type=click.IntRange(0), default=0, help="Cores; 0 is all of them."))
    if bundle:
        options.append(click.option("--bundle", type=_PATH, help="A bundle; the default model's when left out."))

    def add(function: Any) -> Any:
        for option in options:
            function = option(function)
        return function

    return add


def _take(measure: Callable[..., list[Row]], *, as_json: bool, out: Path | None) -> None:
    from overflight.bench.show import progress, show

    with progress(silent=as_json) as report:
        rows = measure(report=report)
    show(rows, as_json=as_json, out=out)


def _plan(rounds: int, seconds: float) -> Any:
    from overflight.bench.sample import SamplingPlan

    return SamplingPlan(rounds=rounds, most=max(200, rounds), seconds=seconds)


def _bundle(given: Path | None) -> Path:
    from overflight.runtime.bundle import default_bundle

    return given or default_bundle()


@click.command("engine")
@_measuring()
@click.option("--checkpoint", type=_PATH, help="The checkpoint that the bundle was made from, for the peers.")
@click.option(
    "--subject", "subjects", multiple=True, help="What to time, as LIBRARY:VARIANT; the first is the baseline."
)
@click.option("--frames", "source", help="Frames to measure on; the bundled sample video when left out.")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=(1,), help="Frames in a call.")
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", help="cpu: the time that the process got.")
@click.option("--whole", is_flag=True, help="From the picture to the decision instead of the tower alone.")
def _engine(
    bundle: Path | None,
    threads: int,
    rounds: int,
    seconds: float,
    out: Path | None,
    as_json: bool,
    checkpoint: Path | None,
    subjects: tuple[str, ...],
    source: str | None,
    batches: tuple[int, ...],
    clock: Clock,
    whole: bool,
) -> None:
    """Time the image tower: our engines, and any peer, in turns.

    Without --subject: the fp32 reference, and the engine that a flight would use on this device.

    Peers run in processes of their own: transformers_torch (fp32, bf16, compiled, cuda-fp16-eager, cuda-fp16-sdpa,
    cuda-fp16-compiled), open_clip (fp32), traced (fp32, dynamic, static), openvino_nncf (fp32, nncf), naive (fp32).

    \b
    overflight bench engine
    overflight bench engine --checkpoint models/default --subject transformers_torch:fp32 --subject ours:fp32
    """
    from overflight.bench.engine import Field, flying, measure
    from overflight.bench.frames import FILM
    from overflight.runtime.bundle import Bundle

    ours = subjects or flying(Bundle.open(_bundle(bundle)))
    subjects = subjects or tuple(name.replace("ours:", "flown:") for name in ours) if whole else ours
    for batch in batches:
        field = Field(_bundle(bundle), subjects, checkpoint, source or str(FILM), threads, batch, clock=clock)
        name = "classify" if whole else "engine"
        _take(partial(measure, field, _plan(rounds, seconds), name=name), as_json=as_json, out=out)


@click.command("peers")
@_measuring()
@click.argument("checkpoint", type=_PATH)
@click.option("--frames", "source", help="Frames to measure on; the bundled sample video when left out.")
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", help="cpu: the time that the process got.")
@click.option(
    "--at-once", type=click.IntRange(1), default=4, show_default=True, help="Peers in memory at the same time."
)
def _peers(
    checkpoint: Path,
    bundle: Path | None,
    threads: int,
    rounds: int,
    seconds: float,
    out: Path | None,
    as_json: bool,
    source: str | None,
    clock: Clock,
    at_once: int,
) -> None:
    """Time every peer and our engines, on the same frames and weights.

    Each group has transformers + torch fp32 (the baseline), ours (the reference and the engines that passed
    overflight build here), and --at-once other peers. A peer that cannot run says why. What a peer lacks is installed
    into an environment of its own.

    \b
    overflight bench peers ./siglip-base-256 --bundle base-256/ --threads 2 --out records.jsonl
    """
    from overflight.bench.engine import Field, groups, measure, proven
    from overflight.bench.frames import FILM
    from overflight.runtime.bundle import Bundle

    for name, subjects in groups(at_once, proven(Bundle.open(_bundle(bundle)))):
        field = Field(_bundle(bundle), subjects, checkpoint, source or str(FILM), threads, clock=clock)
        _take(partial(measure, field, _plan(rounds, seconds), name=name), as_json=as_json, out=out)


@click.command("stream")
@_measuring(plan=False)
@click.option("--fps", type=Finite(min=0), default=0.0, help="A camera's rate; 0 gives every frame.")
@click.option("--size", default="1280x720", show_default=True, help="The camera's picture.")
@click.option("--frames", type=click.IntRange(4), default=300, show_default=True, help="How long the flight is.")
def _stream(
    bundle: Path | None, threads: int, out: Path | None, as_json: bool, fps: float, size: str, frames: int
) -> None:
    """Split a frame's cost by stage, from capture to decision.

    \b
    overflight bench stream --fps 30
    """
    from overflight.bench.stream import measure

    work = partial(measure, _bundle(bundle), fps=fps, size=size, frames=frames, threads=threads)
    _take(work, as_json=as_json, out=out)


@click.command("sustained")
@_measuring(plan=False)
@click.option("--minutes", type=Finite(min=0.01), default=10.0, show_default=True, help="How long.")
@click.option("--fps", type=Finite(min=0), default=0.0, help="A camera's rate; 0 works without a pause.")
def _sustained(bundle: Path | None, threads: int, out: Path | None, as_json: bool, minutes: float, fps: float) -> None:
    """Work for minutes or hours: throttling, and the energy of a frame.

    \b
    overflight bench sustained --minutes 30 --fps 10
    """
    from overflight.bench.stream import measure

    work = partial(measure, _bundle(bundle), fps=fps, threads=threads, seconds=minutes * 60)
    _take(work, as_json=as_json, out=out)


@click.command("memory")
@_measuring(plan=False)
@click.option("--frames", type=click.IntRange(10), default=1000, show_default=True, help="How long the flight is.")
@click.option("--size", default="1280x720", show_default=True, help="The camera's picture.")
def _memory(bundle: Path | None, threads: int, out: Path | None, as_json: bool, frames: int, size: str) -> None:
    """Measure the resident memory of a flight: its peak, its steady state, its growth.

    \b
    overflight bench memory --frames 100000 --size 160x120
    """
    from overflight.bench.process import measure_memory

    _take(partial(measure_memory, _bundle(bundle), frames, threads=threads, size=size), as_json=as_json, out=out)


@click.command("start")
@_measuring(plan=False)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Starts.")
def _start(bundle: Path | None, threads: int, out: Path | None, as_json: bool, rounds: int) -> None:
    """Time the start of a process to its first observation.

    \b
    overflight bench start
    """
    from overflight.bench.process import measure_start

    _take(partial(measure_start, _bundle(bundle), rounds, threads=threads), as_json=as_json, out=out)


@click.command("match")
@_measuring(threads=False)
@click.option("--labels", type=click.IntRange(1), multiple=True, default=(10, 100, 1000, 10_000, 100_000))
def _match(
    bundle: Path | None, rounds: int, seconds: float, out: Path | None, as_json: bool, labels: tuple[int, ...]
) -> None:
    """Time matching as the labels grow.

    \b
    overflight bench match --labels 1000
    """
    from overflight.bench.match import measure_match

    _take(partial(measure_match, _bundle(bundle), labels, _plan(rounds, seconds)), as_json=as_json, out=out)


@click.command("search")
@_measuring(bundle=False, threads=False)
@click.option("--count", "counts", type=click.IntRange(1), multiple=True, default=(1000, 10_000, 100_000))
@click.option("--width", type=click.IntRange(1), default=384, show_default=True, help="Numbers in an embedding.")
def _search(rounds: int, seconds: float, out: Path | None, as_json: bool, counts: tuple[int, ...], width: int) -> None:
    """Time ranking a flight's embeddings as they grow.

    \b
    overflight bench search --count 1000000
    """
    from overflight.bench.match import measure_search

    _take(partial(measure_search, counts, width, _plan(rounds, seconds)), as_json=as_json, out=out)


@click.command("archive")
@_measuring(bundle=False, threads=False)
@click.option("--count", "counts", type=click.IntRange(1), multiple=True, default=(1000, 100_000, 1_000_000))
@click.option("--width", "widths", type=click.IntRange(1), multiple=True, default=(384, 1024), show_default=True)
def _archive(
    rounds: int, seconds: float, out: Path | None, as_json: bool, counts: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    """Time a search of an archive next to NumPy, usearch and faiss, as it grows.

    \b
    overflight bench archive --count 1000000 --width 384
    """
    from overflight.bench.archive import measure_archive

    _take(partial(measure_archive, counts, widths, _plan(rounds, seconds)), as_json=as_json, out=out)


@click.command("grow")
@_measuring()
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 2, 4, 8, 16, 32, 64))
@click.option("--side", "sides", type=click.IntRange(16), multiple=True, default=(224, 500, 1000, 2000, 4000, 8000))
def _grow(
    bundle: Path | None,
    threads: int,
    rounds: int,
    seconds: float,
    out: Path | None,
    as_json: bool,
    batches: tuple[int, ...],
    sides: tuple[int, ...],
) -> None:
    """Time our engine as the batch and the picture grow.

    \b
    overflight bench grow --batch 1 --batch 8 --side 4000 --side 8000
    """
    from overflight.bench.grow import measure_batches, measure_tiles

    plan, at = _plan(rounds, seconds), _bundle(bundle)
    _take(partial(measure_batches, at, batches, plan, threads=threads), as_json=as_json, out=out)
    _take(partial(measure_tiles, at, sides, plan, threads=threads), as_json=as_json, out=out)


@click.command("export", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@_measuring(bundle=False, threads=False, plan=False)
def _export(arguments: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Time an export; the arguments are those of overflight export.

    \b
    overflight bench export models/default /tmp/bundle
    """
    from overflight.bench.process import measure_making

    _take(lambda report: measure_making("export", arguments, Path(arguments[0]).name), as_json=as_json, out=out)


@click.command("build", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@_measuring(bundle=False, threads=False, plan=False)
def _build(arguments: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Time a build; the arguments are those of overflight build.

    \b
    overflight bench build base-256/
    """
    from overflight.bench.process import measure_making

    _take(lambda report: measure_making("build", arguments, Path(arguments[0]).name), as_json=as_json, out=out)


MEASURING = (_engine, _peers, _stream, _sustained, _memory, _start, _match, _search, _archive, _grow, _export, _build)
