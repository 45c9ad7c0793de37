"""The host: the machine, its state, and the commit that was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import uuid
from pathlib import Path

from overflight import __version__
from overflight.bench.row import SCHEMA, Floor, Host, Row, Setting, Unit
from overflight.jetson import board, telemetry

_HERE = Path(__file__).resolve().parent


def describe_host() -> Host:
    """Look at the machine now: a few files, a millisecond or two."""
    jetson = board.identify()
    reading = telemetry.read()
    gpu = _gpu()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Host(
        kind=device_class(cores, None if jetson is None else jetson.model, gpu),
        name=platform.node(),
        processor=_processor(),
        cores=cores,
        memory_bytes=board.memory_bytes() or 0,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
        board=None if jetson is None else f"{jetson.model}, L4T {jetson.l4t}",
        gpu=gpu,
        power_mode=reading.power_mode if reading else None,
        clocks_mhz=reading.cpu_mhz if reading and reading.cpu_mhz else _clocks(),
        temperatures_c=reading.temperatures_c if reading else _temperatures(),
    )


def device_class(cores: int, jetson: str | None, gpu: str | None) -> str:
    """Name the class of devices whose budgets hold: "orin nano", "h100", "x86_64-2"."""
    if jetson is not None:
        return jetson.lower().removeprefix("nvidia jetson ").split(" developer")[0]
    return gpu.lower() if gpu is not None else f"{platform.machine()}-{cores}"


def commit() -> str:
    """Return the commit of this working copy, "+changes" where files differ from it, or the version of a wheel."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    except (OSError, subprocess.SubprocessError):
        return f"overflight {__version__}"
    return head + ("+changes" if changed else "")


def new_run() -> str:
    """Name a run: rows that carry the same name were sampled in turns."""
    return uuid.uuid4().hex[:12]


def make_row(
    measure: str,
    subject: str,
    samples: list[int],
    *,
    run: str,
    included: str,
    model: str = "",
    unit: Unit = "ns",
    settings: dict[str, Setting] | None = None,
    versions: dict[str, str] | None = None,
    hashes: dict[str, str] | None = None,
    figures: dict[str, float] | None = None,
    floor: Floor | None = None,
    reason: str = "",
) -> Row:
    """Make a row of this moment on this machine."""
    return Row(
        schema=SCHEMA,
        run=run,
        measure=measure,
        subject=subject,
        model=model,
        unit=unit,
        samples=tuple(samples),
        taken_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        commit=commit(),
        host=describe_host(),
        included=included,
        settings=settings or {},
        versions=versions or {},
        hashes=hashes or {},
        figures=figures or {},
        floor=floor,
        reason=reason,
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_HERE.parent, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def _processor() -> str:
    """Return the model name with the instruction sets that decide how int8 and bf16 run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    wanted = ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
    name = facts.get("model name") or facts.get("Hardware") or platform.machine()
    return f"{name} ({', '.join(flag for flag in wanted if flag in flags) or 'no vector int8'})"


def _clocks() -> tuple[int, ...]:
    paths = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    return tuple(khz // 1000 for path in paths if (khz := _number(path)) is not None)


def _temperatures() -> dict[str, float]:
    found = {}
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        if (milli := _number(zone / "temp")) is not None:
            found[zone.name] = milli / 1000
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _gpu() -> str | None:
    """Ask the driver for the GPU's name; None where no driver is."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None
