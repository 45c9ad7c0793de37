"""Shards as tasks of a Ray cluster, whose nodes see the sources and the store under the same paths."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import MissingError, OverflightError, missing_extra
from overflight.station.bulk.outcome import Attempts, Outcome
from overflight.station.bulk.shard import ShardTask, embed_shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.station.bulk.fit import Fit

AHEAD = 2  # tasks for each slot of the cluster: one that runs, and one that waits


def run_on_ray(tasks: Iterator[ShardTask], address: str, fit: Fit) -> Iterator[Outcome]:
    """Embed shards as tasks of the cluster at ``address``, and yield what became of each as it ends.

    Ray only executes: resuming, retries and the manifest are the store's. Raises MissingError where no cluster answers.
    """
    ray = _ray()
    _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MissingError(f"{address}: no Ray cluster answers ({error}); start one with: ray start --head") from error
    try:
        work = ray.remote(_work).options(num_cpus=fit.threads, memory=fit.worker_bytes, max_retries=0)
        yield from _run(ray, work, tasks, fit)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ask at HOST:PORT first: Ray itself tries for many minutes. Raises MissingError where nobody answers."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "://" in address:
        return  # "auto", "local", or a Ray client's address
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise MissingError(f"{address}: no Ray cluster answers ({error}); start one with: ray start --head") from error


def _run(ray: Any, work: Any, tasks: Iterator[ShardTask], fit: Fit) -> Iterator[Outcome]:
    again: deque[ShardTask] = deque()
    attempts = Attempts()
    running: dict[Any, ShardTask] = {}

    def give_out() -> None:
        slots = max(1, int(ray.cluster_resources().get("CPU", 1)) // fit.threads)
        while len(running) < AHEAD * slots:
            task = again.popleft() if again else next(tasks, None)
            if task is None:
                return
            running[work.remote(task)] = task

    give_out()
    while running:
        for ended in ray.wait(list(running), num_returns=1)[0]:
            task = running.pop(ended)
            try:
                yield Outcome(task.shard, *ray.get(ended))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.RaySystemError, ray.exceptions.OutOfMemoryError,
                    ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError):  # fmt: skip
                repeated = attempts.crashed(task)
                again.extend(repeated)
                if not repeated:
                    yield attempts.given_up(task)
            except ray.exceptions.RayError as error:  # such as a node without this package
                yield Outcome(task.shard, None, f"a Ray node failed: {str(error).strip().splitlines()[-1]}")
        give_out()


def _work(task: ShardTask) -> tuple[Any, str]:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        return embed_shard(task), ""
    except OverflightError as error:
        return None, str(error)
    except Exception as error:  # reported with its kind; the run ends with it
        return None, f"internal error: {type(error).__name__}: {error}"


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent from a survey's machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's next default; else it warns
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise missing_extra("Ray", "ray") from error
    return ray
