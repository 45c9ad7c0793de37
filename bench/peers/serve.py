"""The process of a subject: load one peer, then run and time each request, a JSON line each.

Only the standard library and numpy are needed here, so that it runs in any peer's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overflight.bench.processor_time import ProcessorTime

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class LoadedPeer:
    """What a peer's ``load`` gives: ``embed`` takes resized frames ``[N, S, S, 3]``, or pictures where ``whole``.

    ``others`` are further calls to be timed in this process. ``graph`` is the ONNX file that runs. ``clock`` is read
    around each call: the wall's, or this thread's own where one thread does all and the neighbours are not the matter.
    """

    embed: Embed
    versions: dict[str, str] = field(default_factory=dict)
    graph: str = ""
    note: str = ""
    whole: bool = False
    clock: Callable[[], int] = time.perf_counter_ns
    others: dict[str, Callable[[], object]] = field(default_factory=dict)


class PeerUnavailable(Exception):  # noqa: N818 - not a failure: a peer says why it cannot run here
    """A peer cannot run here; the text says why."""


def main() -> None:
    """Speak the protocol on standard input and output; whatever a library prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**what: Any) -> None:
        channel.write(json.dumps(what) + "\n")
        channel.flush()

    try:
        _serve(say)
    except (PeerUnavailable, ImportError) as error:
        say(missing=_line(error))
    except Exception as error:  # whatever a library raises becomes one line for the other side
        say(error=_line(error))


def _serve(say: Callable[..., None]) -> None:
    job = json.loads(sys.stdin.readline())
    began = time.perf_counter_ns()
    loaded: LoadedPeer = import_module(f"overflight.bench.peers.{job['peer']}").load(job)
    load_ns = time.perf_counter_ns() - began
    frames = np.load(job["pictures"] if loaded.whole else job["frames"], mmap_mode=None)
    clock = time.process_time_ns if job["clock"] == "cpu" else loaded.clock
    batch = _Batch(frames, job["batch"])
    calls: dict[str, Callable[[int], object]] = {"embed": lambda start: loaded.embed(batch.at(start))}
    calls |= {name: lambda start, work=work: work() for name, work in loaded.others.items()}  # type: ignore[misc]
    began = time.perf_counter_ns()
    calls["embed"](0)
    first_ns = time.perf_counter_ns() - began
    ready = {"calls": list(calls), "load_ns": load_ns, "first_ns": first_ns, "versions": loaded.versions}
    say(ready={**ready, "graph": loaded.graph, "note": loaded.note})
    for line in sys.stdin:
        asked = json.loads(line)
        match asked["do"]:
            case "turn":
                call, frame = calls[asked["call"]], asked["frame"]
                used = ProcessorTime()
                with used.measuring():
                    began = clock()
                    call(frame)
                    ns = clock() - began
                say(turn={"ns": ns, "wall_ns": used.wall_ns, "cpu_ns": used.cpu_ns, "waited_ns": used.waited_ns})
            case "memory":
                say(memory=_memory())
            case "answers":
                path = Path(job["scratch"]) / f"answers-{os.getpid()}.npy"
                np.save(path, np.concatenate([np.array(loaded.embed(frame[None])) for frame in frames]))
                say(answers=str(path))


class _Batch:
    """Consecutive frames, round and round."""

    def __init__(self, frames: NDArray[np.uint8], size: int) -> None:
        self._frames = np.concatenate([frames, *([frames] * (size // len(frames) + 1))])
        self._count, self._size = len(frames), size

    def at(self, start: int) -> NDArray[np.uint8]:
        start %= self._count
        return self._frames[start : start + self._size]


def _memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    facts = {
        key: int(value.split()[0]) * 1024 for key, _, value in (line.partition(":") for line in lines) if "kB" in value
    }
    return {"peak_bytes": facts["VmHWM"], "resident_bytes": facts["VmRSS"]}


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no further message'}"


if __name__ == "__main__":
    main()
