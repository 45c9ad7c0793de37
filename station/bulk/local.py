"""Worker processes on this machine: one that ends without an answer is replaced, and its shard given out again."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import OverflightError
from overflight.station.bulk.outcome import Attempts, Outcome
from overflight.station.bulk.shard import ShardTask, embed_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from overflight.station.bulk.records import ShardRecord

# The engine has threads of its own; more of them in NumPy or OpenCV only wait for each other.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_local(tasks: Iterator[ShardTask], workers: int) -> Iterator[Outcome]:
    """Embed shards in worker processes, and yield what became of each as it ends."""
    pool = [_Worker() for _ in range(workers)]
    again: deque[ShardTask] = deque()
    attempts = Attempts()
    try:
        for worker in pool:
            worker.give(again, tasks)
        while busy := [worker for worker in pool if worker.task is not None]:
            ready = wait([worker.channel for worker in busy])
            for worker in [one for one in busy if one.channel in ready]:
                task, worker.task = worker.task, None
                assert task is not None
                answer = worker.answer()
                if answer is None:
                    worker.replace()
                    repeated = attempts.crashed(task)
                    again.extend(repeated)
                    if not repeated:
                        yield attempts.given_up(task)
                else:
                    yield Outcome(task.shard, *answer)
                worker.give(again, tasks)
    finally:
        for worker in pool:
            worker.end()


class _Worker:
    def __init__(self) -> None:
        self.task: ShardTask | None = None
        self.channel: Connection
        self._process: Any
        self.replace()

    def replace(self) -> None:
        """Start a process; the environment that it inherits keeps other libraries at one thread."""
        context = multiprocessing.get_context("spawn")  # a forked engine deadlocks
        self.channel, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        try:
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        theirs.close()

    def give(self, again: deque[ShardTask], tasks: Iterator[ShardTask]) -> None:
        """Hand over the next shard, if there is one."""
        self.task = again.popleft() if again else next(tasks, None)
        if self.task is not None:
            try:
                self.channel.send(self.task)
            except (BrokenPipeError, OSError):
                self.replace()
                self.channel.send(self.task)

    def answer(self) -> tuple[Any, str] | None:
        """Return the worker's answer, None where its process has ended."""
        try:
            found: tuple[Any, str] = self.channel.recv()
        except (EOFError, OSError):
            self._process.join()
            return None
        return found

    def end(self) -> None:
        """Stop the process."""
        self.channel.close()
        if self.task is not None:
            self._process.terminate()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def _serve(channel: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while True:
        try:
            task = channel.recv()
        except (EOFError, OSError):
            return
        answer: tuple[ShardRecord | None, str]
        try:
            answer = (embed_shard(task, parent.is_alive), "")
        except KeyboardInterrupt:
            return
        except OverflightError as error:
            answer = (None, str(error))
        except Exception as error:  # reported with its kind; the run ends with it
            answer = (None, f"internal error: {type(error).__name__}: {error}")
        try:
            channel.send(answer)
        except OSError:
            return
