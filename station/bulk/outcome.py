"""What became of a shard, and how often it is given out again after a worker ended on it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from overflight.station.bulk.records import MOST_ATTEMPTS

if TYPE_CHECKING:
    from overflight.station.bulk.records import Shard, ShardRecord
    from overflight.station.bulk.shard import ShardTask

MOST_CRASHES = 4 * MOST_ATTEMPTS  # of one shard: four items of it may end a worker each time


class Outcome(NamedTuple):
    """A shard with its manifest, or the reason for which the run must stop."""

    shard: Shard
    record: ShardRecord | None
    reason: str = ""


class Attempts:
    """Counts the workers that ended on each shard."""

    def __init__(self) -> None:
        self._crashes: Counter[int] = Counter()

    def crashed(self, task: ShardTask) -> list[ShardTask]:
        """Return the task to be given out again, from now on with a note of each item; nothing where it is enough."""
        self._crashes[task.shard.number] += 1
        return [task._replace(careful=True)] if self._crashes[task.shard.number] < MOST_CRASHES else []

    def given_up(self, task: ShardTask) -> Outcome:
        """Return the outcome of a shard that is not given out again."""
        return Outcome(
            task.shard,
            None,
            f"shard {task.shard.number}: {self._crashes[task.shard.number]} workers ended without an answer, killed or "
            "out of memory; see the system's log, take fewer workers, and run the same command again",
        )
