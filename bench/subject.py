"""A subject: an engine or a peer in its own process, controlled by JSON lines, so that all can take turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

import overflight
from overflight.bench.environment import python_of
from overflight.runtime.errors import EngineError, MissingError

if TYPE_CHECKING:
    from types import TracebackType

SOURCE = Path(overflight.__file__).resolve().parent.parent


Clock = Literal["wall", "cpu"]


class Job(msgspec.Struct, frozen=True):
    """What a subject is to load: the same for all of a run, but for the ``variant``.

    ``frames`` is an ``.npy`` of resized frames uint8 ``[N, S, S, 3]`` RGB, ``pictures`` one of whole ones
    ``[N, H, W, 3]`` in BGR; ``scratch`` keeps what was made once (a traced graph) for
    the next run. ``clock`` "cpu" counts the time that the process really had, so that other processes matter less; it
    equals the wall's where one thread works alone. ``calibration`` is an ``.npy`` of the frames that the bundle was
    calibrated with; "" where it was not: others then calibrate on the measured frames, which flatters them.
    """

    peer: str
    variant: str
    checkpoint: str
    bundle: str
    frames: str
    pictures: str
    labels: tuple[str, ...]
    threads: int
    scratch: str
    batch: int = 1
    clock: Clock = "wall"
    calibration: str = ""


class Ready(msgspec.Struct, frozen=True):
    """What a subject says when it has loaded: how long that and its first answer took, what runs, what else it times.

    ``graph`` is the ONNX file that runs, where there is one; ``calls`` are the names that ``turn`` takes.
    """

    calls: tuple[str, ...]
    load_ns: int
    first_ns: int
    versions: dict[str, str]
    graph: str = ""
    note: str = ""


class Memory(msgspec.Struct, frozen=True):
    """Resident memory of the subject's process, in bytes: its highest and its present."""

    peak_bytes: int
    resident_bytes: int


class TurnTime(msgspec.Struct, frozen=True):
    """What one call took: ``ns`` by the job's clock, and the processor time that its process got meanwhile."""

    ns: int
    wall_ns: int
    cpu_ns: int
    waited_ns: int | None


class _Said(msgspec.Struct, frozen=True):
    """One line from a subject: exactly one field is set."""

    ready: Ready | None = None
    turn: TurnTime | None = None
    memory: Memory | None = None
    answers: str | None = None
    error: str | None = None
    missing: str | None = None


class Subject:
    """A running subject. ``source`` is the tree whose code it runs: another one to compare two commits."""

    def __init__(self, job: Job, *, requirements: tuple[str, ...] = (), source: Path = SOURCE) -> None:
        self.name = f"{job.peer}:{job.variant}"
        python = python_of(job.peer, requirements) if requirements else sys.executable
        environment = os.environ | {"PYTHONPATH": str(source), "PYTHONUNBUFFERED": "1"}
        if job.threads:
            environment |= {name: str(job.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [python, "-m", "overflight.bench.peers.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        try:
            self._say(msgspec.json.encode(job))
            ready = self._hear().ready
            assert ready is not None
        except BaseException:
            self.close()
            raise
        self.ready = ready

    def turn(self, call: str, frame: int = 0) -> TurnTime:
        """Do one call on the frames from ``frame`` on; return what it took in the subject's process."""
        self._say(msgspec.json.encode({"do": "turn", "call": call, "frame": frame}))
        took = self._hear().turn
        assert took is not None
        return took

    def memory(self) -> Memory:
        """Ask for its resident memory."""
        self._say(b'{"do":"memory"}')
        memory = self._hear().memory
        assert memory is not None
        return memory

    def answers(self) -> Path:
        """Embed every frame into an ``.npy`` float32 ``[N, D]``."""
        self._say(b'{"do":"answers"}')
        path = self._hear().answers
        assert path is not None
        return Path(path)

    def close(self) -> None:
        """End the process; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._log.close()

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _hear(self) -> _Said:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        said = msgspec.json.decode(line, type=_Said)
        if said.missing is not None:
            raise MissingError(said.missing)
        if said.error is not None:
            raise EngineError(f"{self.name}: {said.error}")
        return said

    def _died(self) -> EngineError:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        how = "was killed, most likely for memory" if code == -9 else f"ended with code {code}"
        return EngineError(f"{self.name}: its process {how}: {lines[-1] if lines else 'it printed nothing'}")
