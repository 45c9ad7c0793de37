"""``overflight run``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from overflight.runtime.decisions.event_tracker import EventRules
    from overflight.runtime.filters.similarity import SimilarityReport
    from overflight.runtime.flight.run import FlightConfig
    from overflight.runtime.records import Observation
    from overflight.runtime.stream import Stream


@click.command()
@click.argument("source", envvar="OVERFLIGHT_SOURCE")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="A label bank or a folder of them; the bundle's own if left out.",
)
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle; the default model's when left out.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the flight is left; flights/<time> when left out.")
@click.option("--replace", is_flag=True, help="Replace a flight that lies there.")
@click.option("--target", help="An engine's target, such as openvino-cpu; the fastest proven one when left out.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="An engine's precision.")
@click.option("--force-engine", is_flag=True, help="Fly an engine that failed the gate or was never judged.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Cores for the engine; 0 is all of them.")
@click.option(
    "--margin", type=click.FloatRange(0, 1), default=0.0, help="Lead in score without which a frame is unknown."
)
@click.option("--persist", default="3/5", show_default=True, help="An event begins when N of the last M frames agree.")
@click.option("--least", type=float, default=0.0, help="Seconds that a label must last before its event begins.")
@click.option("--cool-down", type=float, default=2.0, show_default=True, help="Seconds without the same event again.")
@click.option(
    "--watch-bank", is_flag=True, help="Take a new bank in flight whenever --labels (a file or folder) changes."
)
@click.option(
    "--health",
    type=click.IntRange(0, 65535),
    help="Serve health, status, metrics and POST /bank on this loopback port.",
)
@click.option(
    "--pose", help="Telemetry: stills, FILE.srt|csv|gpx|mp4|ts|tlog|bin, udpin:0.0.0.0:14550 or a serial port."
)
@click.option("--camera", help="Angles of view, for places: hfov=71.6,vfov=56.8 or f35=24; gimbal=-90; ground=M.")
@click.option("--terrain", metavar="DEM.tif", help="Elevation model that footprints follow; DEM.tif?takeoff=LAT,LON.")
@click.option(
    "--link",
    "links",
    multiple=True,
    help="Where events go: mqtt://, cot+udp://, https://, mavlink:…; repeatable.",
)
@click.option("--outbox", type=click.Path(path_type=Path), help="Keeps what waits for the links, across flights.")
@click.option("--budget-mb", type=click.IntRange(min=1), help="Most megabytes for the journal.")
@click.option("--fps", type=float, help="Look at so many frames a second at most.")
@click.option("--duty", metavar="ON/PERIOD", help="Look for ON of every PERIOD seconds, such as 10/60.")
@click.option("--latency-ms", type=float, default=0.0, help="How long this camera's pictures are under way.")
@click.option(
    "--skip-similar", type=float, metavar="LEVELS", help="Skip frames that changed less (grey levels; try 6)."
)
@click.option("--tiles", metavar="auto|RxC", help="Judge frames piece by piece too: by themselves, or in a grid.")
@click.option("--json", "as_json", is_flag=True, help="Print every observation as a JSON line.")
def command(
    source: str,
    labels: Path | None,
    bundle: Path | None,
    out: Path | None,
    margin: float,
    tiles: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Label what a camera, a recording or a folder shows.

    SOURCE is a file, a folder, a quoted pattern, mosaic.tif, /dev/video0, csi://0, rtsp://…, udp://@:5600,
    rtp://@:5004, 'gst://PIPELINE' (a GStreamer pipeline without its sink) or test://. A live source is followed until
    SIGTERM or Ctrl-C, its newest frame first; any other is read to its end.
    Without SOURCE, the variable OVERFLIGHT_SOURCE names it, which keeps a password out of the list of processes.

    \b
    overflight run flight.mp4 --labels bank.safetensors --out flights/first
    overflight run rtsp://192.168.144.25:8554/main --labels bank.safetensors
    overflight run csi://0 --pose udpin:0.0.0.0:14550 --camera hfov=71.6 --link mqtt://192.168.1.2/overflight/one
    """
    from overflight.runtime import Overflight
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.doctor.memory_plan import require_flight
    from overflight.runtime.flight.bank_watch import newest_bank
    from overflight.runtime.flight.live_line import LiveLine
    from overflight.runtime.flight.run import fly
    from overflight.runtime.tiles import Tiling

    engine = {"forced": given.pop("force_engine")} | {
        name: given.pop(name) for name in ("target", "precision", "threads")
    }
    config = _flight_config(labels, **given)
    out = out or Path("flights") / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    bank = None if labels is None else newest_bank(labels)
    tiling = Tiling.parse(tiles) if tiles else None
    opened = Bundle.open(bundle or default_bundle())
    require_flight(opened)
    with Overflight.load(opened, bank, margin=margin, tiling=tiling, **engine) as overflight:
        if as_json:
            fly(overflight, source, out, config, on_observation=_print_line)
            return
        with LiveLine() as line:
            record = fly(overflight, source, out, config, on_observation=line.watch)
    click.echo(f"{record.observed} observations, {sum(record.dropped.values())} frames not observed, in {out}")
    if record.gate is not None and record.gate.audited:
        click.echo(_price(record.gate))


def _print_line(_: Stream, observation: Observation) -> None:
    from overflight.runtime.records import encode_line

    sys.stdout.buffer.write(encode_line(observation))


def _flight_config(
    labels: Path | None,
    *,
    replace: bool,
    persist: str,
    least: float,
    cool_down: float,
    watch_bank: bool,
    health: int | None,
    pose: str | None,
    camera: str | None,
    terrain: str | None,
    links: tuple[str, ...],
    outbox: Path | None,
    budget_mb: int | None,
    fps: float | None,
    duty: str | None,
    latency_ms: float,
    skip_similar: float | None,
) -> FlightConfig:
    from overflight.runtime.errors import UsageError
    from overflight.runtime.filters.pace import Pace
    from overflight.runtime.flight.peripherals import PeripheralConfig
    from overflight.runtime.flight.run import FlightConfig

    if watch_bank and labels is None:
        raise UsageError("--watch-bank: nothing to watch; name a bank's file or folder with --labels")
    return FlightConfig(
        rules=_rules(persist, least, cool_down),
        pace=Pace(fps, Pace.parse_duty(duty) if duty else None, latency_ms, skip_similar),
        watch_bank=labels if watch_bank else None,
        health_port=health,
        peripherals=PeripheralConfig(pose, camera, links, outbox, terrain),
        budget_bytes=None if budget_mb is None else budget_mb * 1_000_000,
        replace=replace,
    )


def _price(gate: SimilarityReport) -> str:
    return (
        f"{gate.skipped_share:.0%} of frames skipped as similar; of {gate.audited} judged all the same, "
        f"{gate.agreement:.1%} had the label that was kept"
    )


def _rules(persist: str, least_s: float, cool_down_s: float) -> EventRules:
    from overflight.runtime.decisions.event_tracker import EventRules
    from overflight.runtime.errors import UsageError

    hits, _, window = persist.partition("/")
    if not (hits.isdigit() and window.isdigit() and 1 <= int(hits) <= int(window)):
        raise UsageError(f"--persist {persist}: expected N/M with N at most M, such as 3/5")
    return EventRules(int(hits), int(window), least_s, cool_down_s)
