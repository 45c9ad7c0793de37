"""Whole processes: start to first observation, memory over a flight, and the time of export and build."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.bench.bank import random_bank
from overflight.bench.host import make_row, new_run
from overflight.bench.processor_time import ProcessorTime
from overflight.bench.subject import SOURCE
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overflight.bench.row import Row
    from overflight.bench.sample import Report

_POLL_S = 0.1


def measure_start(
    directory: Path, rounds: int = 5, *, threads: int = 0, report: Report = lambda stage, share: None
) -> list[Row]:
    """From the start of ``overflight run`` to its first line of output."""
    bundle = Bundle.open(directory)
    samples, used = [], ProcessorTime()
    with tempfile.TemporaryDirectory() as scratch:
        bank = _bank(bundle, Path(scratch))
        for number in range(rounds):
            report("starting", number / rounds)
            order = _run(directory, bank, Path(scratch) / f"{number}", frames=1, threads=threads)
            began = time.perf_counter_ns()
            child = subprocess.Popen(
                [*order, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
            )
            assert child.stdout is not None
            line = child.stdout.readline()
            samples.append(time.perf_counter_ns() - began)
            used.add_child(child.pid, samples[-1])
            _, errors = child.communicate()
            if not line:
                raise EngineError(f"overflight run said nothing: {errors.decode(errors='replace').strip()[-200:]}")
            json.loads(line)
    return [
        make_row(
            "start",
            "overflight run",
            samples,
            run=new_run(),
            included="start of the process to the first observation on its output; the files are in the page cache",
            model=bundle.manifest.name,
            settings={"threads": threads, "weights_mb": _weights_mb(bundle)},
            hashes={"bundle": bundle.sha256},
            figures=used.figures(1),
        )
    ]


def measure_memory(
    directory: Path,
    frames: int = 1000,
    *,
    threads: int = 0,
    size: str = "1280x720",
    report: Report = lambda stage, share: None,
) -> list[Row]:
    """Resident memory of ``overflight run`` over a flight: each sample is a reading, ten a second.

    ``growth_per_1000_frames`` is the slope through the second half (Theil's: a single jump cannot move it).
    """
    bundle = Bundle.open(directory)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "flight"
        order = _run(directory, _bank(bundle, Path(scratch)), out, frames=frames, threads=threads, size=size)
        child = subprocess.Popen(order, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment())
        samples = []
        began = time.monotonic()
        while child.poll() is None:
            if (resident := _resident(child.pid)) is not None:
                samples.append(resident)
            report("flying", 0.0)
            time.sleep(_POLL_S)
        lasted = time.monotonic() - began
        _, errors = child.communicate()
        if child.returncode:
            raise EngineError(f"overflight run failed: {errors.decode(errors='replace').strip()[-200:]}")
    half = np.asarray(samples[len(samples) // 2 :], np.float64)
    frames_per_sample = frames / max(1.0, lasted / _POLL_S)
    return [
        make_row(
            "memory",
            "overflight run",
            samples,
            run=new_run(),
            unit="bytes",
            included="resident memory of the whole process (VmRSS), from its start to the end of the flight",
            model=bundle.manifest.name,
            settings={"threads": threads, "frames": frames, "size": size, "weights_mb": _weights_mb(bundle)},
            hashes={"bundle": bundle.sha256},
            figures={
                "peak_bytes": float(max(samples)),
                "steady_bytes": float(np.median(half)),
                "growth_per_1000_frames": _slope(half) / frames_per_sample * 1000,
            },
        )
    ]


def measure_making(what: str, arguments: Sequence[str], model: str) -> list[Row]:
    """How long ``overflight export`` or ``build`` takes, and its peak memory."""
    began = time.perf_counter_ns()
    child = subprocess.Popen(
        [sys.executable, "-m", "overflight", what, *arguments], stdout=subprocess.DEVNULL, env=_environment()
    )
    # Read while it runs: the peak that wait4 returns counts this process's own memory, which a start passes on.
    peak_bytes, ended = 0, 0
    while not ended:
        peak_bytes = max(peak_bytes, _peak(child.pid))
        time.sleep(_POLL_S / 10)
        ended, status, usage = os.wait4(child.pid, os.WNOHANG)
    took = time.perf_counter_ns() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise EngineError(f"overflight {what} {' '.join(arguments)}: it ended with code {child.returncode}; see above")
    return [
        make_row(
            what,
            f"overflight {what}",
            [took],
            run=new_run(),
            included="the whole command, its start and its proof included",
            model=model,
            figures={"peak_bytes": float(peak_bytes), "cpu_s": usage.ru_utime + usage.ru_stime},
        )
    ]


def _run(directory: Path, bank: Path, out: Path, *, frames: int, threads: int, size: str = "1280x720") -> list[str]:
    source = f"test://?frames={frames}&fps=0&size={size}"
    order = [sys.executable, "-m", "overflight", "run", source]
    order += ["--bundle", str(directory), "--labels", str(bank)]
    return [*order, "--out", str(out), "--threads", str(threads)]


def _bank(bundle: Bundle, scratch: Path) -> Path:
    path = scratch / "bank.safetensors"
    random_bank(bundle.manifest, 45).save(path)
    return path


def _weights_mb(bundle: Bundle) -> float:
    return round((bundle.directory / "image.onnx").stat().st_size / 1e6, 1)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE)}


def _resident(pid: int) -> int | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") or None


def _peak(pid: int) -> int:
    """The peak memory of a program since its start, in bytes; 0 after its end."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _slope(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Bytes per reading: the median of the slopes between the halves' readings."""
    middle = len(values) // 2
    return float(np.median(values[-middle:] - values[:middle]) / max(1, len(values) - middle)) if middle else 0.0
