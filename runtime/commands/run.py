"""``overflight run``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from overflight.runtime.decisions.event_tracker import EventRules
    from overflight.runtime.filters.similarity import SimilarityReport
    from overflight.runtime.flight.run import FlightConfig
    from overflight.runtime.overflight import Overflight
    from overflight.runtime.records import FlightRecord, Observation
    from overflight.runtime.stream import Stream


def _read_config(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Give the options the file's values as defaults, so that the command line goes first."""
    from overflight.runtime.flight.config import read_config

    if path is not None:
        context.default_map = read_config(path, context.command, context)
    return path


@click.command()
@click.argument("source", required=False, envvar="OVERFLIGHT_SOURCE")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_read_config,
    help="Read the options from a TOML file; the command line goes first.",
)
@click.option("--print-config", is_flag=True, help="Print these options as such a file, and exit.")
@click.option("--check", is_flag=True, help="Open everything, evaluate one frame, and exit without a flight.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="A label bank, or a folder of them.  [default: the bundle's]"
)
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle.  [default: the default model's]")
@click.option("--out", type=click.Path(path_type=Path), help="The flight's directory.  [default: flights/TIME]")
@click.option("--replace", is_flag=True, help="Replace the flight in --out, if there is one.")
@click.option("--target", help="The engine's target, such as openvino-cpu.  [default: the fastest that passed]")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="The engine's precision.")
@click.option("--force-engine", is_flag=True, help="Use an engine that failed its test or was never tested.")
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Threads for the engine.  [default: every core]",
)
@click.option(
    "--margin",
    metavar="SCORE",
    type=Finite(0, 1),
    default=0.0,
    help="A frame whose best label leads by less is unknown.",
)
@click.option("--persist", metavar="N/M", default="3/5", show_default=True, help="An event needs N of M frames.")
@click.option(
    "--least",
    metavar="SECONDS",
    type=Finite(min=0),
    default=0.0,
    help="An event needs a label for at least so many seconds.",
)
@click.option(
    "--cool-down",
    metavar="SECONDS",
    type=Finite(min=0),
    default=2.0,
    show_default=True,
    help="Seconds after an event before the same label can begin another.",
)
@click.option("--watch-bank", is_flag=True, help="Load the newest label bank whenever --labels changes.")
@click.option(
    "--health",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Serve health, status, metrics and /bank on this port of 127.0.0.1.",
)
@click.option(
    "--pose",
    metavar="SOURCE",
    help="Telemetry: stills, stream, FILE.srt|csv|gpx|mp4|ts|tlog|bin, udpin:0.0.0.0:14550, or a serial port.",
)
@click.option(
    "--camera",
    metavar="ANGLES",
    help="The camera's angles of view: hfov=71.6,vfov=56.8 or f35=24; gimbal=-90; ground=M.",
)
@click.option("--terrain", metavar="DEM.tif", help="Elevation model that footprints follow; DEM.tif?takeoff=LAT,LON.")
@click.option(
    "--link",
    "links",
    metavar="ADDRESS",
    multiple=True,
    help="Send events to mqtt://, cot+udp://, https://, mavlink:…; repeat.",
)
@click.option(
    "--source-file",
    type=click.Path(path_type=Path),
    help="Read SOURCE from this file, so that its password is not on the command line.",
)
@click.option(
    "--link-file",
    "link_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Read links from this file, one a line; repeat.",
)
@click.option("--outbox", type=click.Path(path_type=Path), help="The file that keeps unsent events across flights.")
@click.option("--budget-mb", metavar="MB", type=click.IntRange(min=1), help="The journal's largest size, in megabytes.")
@click.option("--fps", metavar="N", type=Finite(min=0, min_open=True), help="Evaluate at most so many frames a second.")
@click.option("--duty", metavar="ON/PERIOD", help="Evaluate the first ON of every PERIOD seconds, such as 10/60.")
@click.option(
    "--latency-ms", metavar="MS", type=Finite(min=0), default=0.0, help="Camera latency: from exposure to arrival."
)
@click.option(
    "--skip-similar",
    type=Finite(min=0),
    metavar="LEVELS",
    help="Skip a frame that differs by less than so many grey levels; try 6.",
)
@click.option(
    "--power-budget",
    metavar="W",
    type=Finite(min=0, min_open=True),
    help="Evaluate fewer frames and tiles while the module draws more watts than this.",
)
@click.option(
    "--max-temperature",
    metavar="C",
    type=Finite(30, 110),
    help="Evaluate fewer frames and tiles while the hottest zone is at so many degrees.",
)
@click.option(
    "--reserve-wh",
    metavar="WH",
    type=Finite(min=0, min_open=True),
    help="Evaluate fewer frames and tiles when the autopilot's battery has no more than this left.",
)
@click.option("--tiles", metavar="auto|RxC", help="Evaluate the tiles of each frame too: auto, or rows x columns.")
@click.option("--json", "as_json", is_flag=True, help="Print every observation as a JSON line.")
@click.pass_context
def command(context: click.Context, /, source: str | None, print_config: bool, check: bool, **given: Any) -> None:
    """Label what a camera, a recording or a folder of stills shows.

    SOURCE is a file, a folder, a quoted pattern, mosaic.tif, /dev/video0, csi://0, rtsp://…, udp://@:5600,
    rtp://@:5004, rtmp://0.0.0.0:1935/live/KEY?listen, srt://:9000?mode=listener, http://CAMERA/PICTURE.jpg,
    'gst://PIPELINE' (a GStreamer pipeline without its sink) or test://. A live source runs until
    SIGTERM, SIGHUP or Ctrl-C, and only its newest frame is kept; any other source is read to its end.
    Without SOURCE, the variable OVERFLIGHT_SOURCE names it, which keeps a password out of the list of processes.

    \b
    overflight run flight.mp4 --labels bank.safetensors --out flights/first
    overflight run rtsp://192.168.144.25:8554/main --labels bank.safetensors
    overflight run csi://0 --pose udpin:0.0.0.0:14550 --camera hfov=71.6 --link mqtt://192.168.1.2/overflight/one
    overflight run csi://0 --labels bank.safetensors --print-config > flight.toml
    overflight run --config flight.toml
    """
    from overflight.runtime.address_file import read_addresses

    if check or not print_config:
        files = given.pop("link_files")
        given["links"] += tuple(address for file in files for address in read_addresses(file, "--link-file"))
        source = _source(context, source, given.pop("source_file"))
        _fly(source, check=check, silent=print_config, **given)
    if print_config:
        click.echo(_config_text(context), nl=False)


def _source(context: click.Context, source: str | None, file: Path | None) -> str:
    """Return the source, or the one that ``--source-file`` holds, which goes before a configuration's."""
    from overflight.runtime.address_file import read_address
    from overflight.runtime.errors import UsageError

    if file is not None:
        if context.get_parameter_source("source") is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"--source-file {file}: a source is on the command line too; give one of them")
        return read_address(file, "--source-file")
    if source is None:
        raise UsageError("run: no source; name one, or a configuration with --config")
    return source


def _config_text(context: click.Context) -> str:
    """Write the options in force as a configuration file, paths made absolute."""
    from overflight.runtime.flight.config import absolute, config_keys, read_text, write_config

    values = {}
    for parameter in config_keys(context.command).values():
        name = str(parameter.name)
        if context.get_parameter_source(name) in (click.core.ParameterSource.DEFAULT, None):
            continue
        values[name] = absolute(parameter, context.params[name], Path.cwd())
    given: Path | None = context.params["config"]
    return write_config(context.command, values, None if given is None else read_text(given))


def _fly(
    source: str,
    *,
    labels: Path | None,
    bundle: Path | None,
    out: Path | None,
    margin: float,
    tiles: str | None,
    as_json: bool,
    check: bool,
    silent: bool,
    **given: Any,
) -> None:
    from overflight.runtime import Overflight
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.doctor.memory_plan import require_flight
    from overflight.runtime.flight.bank_watch import newest_bank
    from overflight.runtime.flight.preflight import check_flight
    from overflight.runtime.tiles import Tiling

    given.pop("config")
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
        if check:
            for line in check_flight(overflight, source, config):
                click.echo(line, err=silent)
            return
        record = _follow(overflight, source, out, config, as_json=as_json)
    if not as_json:
        click.echo(_summary(record, out))


def _follow(overflight: Overflight, source: str, out: Path, config: FlightConfig, *, as_json: bool) -> FlightRecord:
    from overflight.runtime.flight.live_line import LiveLine
    from overflight.runtime.flight.run import fly

    if as_json:
        return fly(overflight, source, out, config, on_observation=_print_line)
    with LiveLine() as line:
        return fly(overflight, source, out, config, on_observation=line.watch)


def _print_line(stream: Stream, observation: Observation) -> None:
    """Print one observation; when nobody reads any more, end the flight."""
    from overflight.runtime.records import encode_line

    try:
        sys.stdout.buffer.write(encode_line(observation))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        stream.stop()


def _summary(record: FlightRecord, out: Path) -> str:
    skipped = f", {sum(record.skipped.values())} skipped on request" if record.skipped else ""
    line = f"{record.observed} observations, {sum(record.dropped.values())} frames lost{skipped}, in {out}"
    return f"{line}\n{_audit(record.gate)}" if record.gate is not None and record.gate.audited else line


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
    power_budget: float | None,
    max_temperature: float | None,
    reserve_wh: float | None,
) -> FlightConfig:
    from overflight.runtime.errors import UsageError
    from overflight.runtime.filters.pace import Pace
    from overflight.runtime.flight.governor import GovernorLimits
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
        limits=GovernorLimits(power_budget, max_temperature, reserve_wh),
        replace=replace,
    )


def _audit(report: SimilarityReport) -> str:
    return (
        f"{report.skipped_share:.0%} of frames skipped as similar; of {report.audited} evaluated anyway as an audit, "
        f"{report.agreement:.1%} had the label that was kept"
    )


def _rules(persist: str, least_s: float, cool_down_s: float) -> EventRules:
    from overflight.runtime.decisions.event_tracker import EventRules
    from overflight.runtime.errors import UsageError

    hits, _, window = persist.partition("/")
    if not (hits.isdigit() and window.isdigit() and 1 <= int(hits) <= int(window)):
        raise UsageError(f"--persist {persist}: expected N/M with N at most M, such as 3/5")
    return EventRules(int(hits), int(window), least_s, cool_down_s)
