"""The governor at work: reads the sensors once a second, acts on the stream, and reports every change."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.jetson import telemetry, thermal
from overflight.runtime.flight.governor import Governor, GovernorLimits, Sensed
from overflight.runtime.log import say
from overflight.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.flight.governor import GovernorChange, Step
    from overflight.runtime.flight.warnings import Warnings

EVERY_S = 1.0
CLOSE_S = 5.0
UNHEARD_S = 60.0  # an autopilot sends its battery within seconds


@dataclass(frozen=True)
class GovernorActions:
    """Where the governor acts: ``apply`` sets a step, ``record`` keeps a change with the time of day in ns."""

    apply: Callable[[Step], None]
    record: Callable[[int, GovernorChange], None]


class GovernorWatch:
    """Runs a governor in a thread of its own. Does nothing where no limit is set.

    ``battery_wh`` returns what the aircraft's battery has left, or None. A limit that nothing measures on this machine
    is a warning, in the log and in health.
    """

    def __init__(
        self,
        limits: GovernorLimits,
        actions: GovernorActions,
        warnings: Warnings,
        *,
        tiled: bool,
        live: bool,
        battery_wh: Callable[[], float | None] = lambda: None,
        root: Path = Path("/"),
    ) -> None:
        self.governor = Governor(limits, tiled=tiled)
        self.changes = 0
        self.worker = Worker("governor", self._step)
        self._limits, self._actions, self._warnings = limits, actions, warnings
        self._battery_wh, self._root = battery_wh, root
        self._began_s = time.monotonic()
        self._over_current: dict[str, int] | None = None
        self.active = limits.set and live
        if limits.set and not live:
            warnings.set("governor", "a recording is read to its end, frame by frame: the limits have no effect")
        if self.active:
            self.worker.start()

    @property
    def note(self) -> str | None:
        """The step in force, for health; None while nothing is reduced."""
        return f"governor: {self.governor.step.name}" if self.governor.number else None

    def close(self) -> None:
        """Stop reading."""
        self.worker.close(CLOSE_S)

    def _step(self) -> float:
        self.update(time.monotonic(), time.time_ns(), self._sense())
        return EVERY_S

    def update(self, now_s: float, utc_ns: int, sensed: Sensed) -> None:
        """Take what is sensed, and act on a change."""
        self._warnings.set("governor", self._blind(now_s, sensed))
        change = self.governor.update(now_s, sensed)
        if change is not None:
            self.changes += 1
            self._actions.apply(self.governor.step)
            self._actions.record(utc_ns, change)
            say("governor", step=change.step, name=change.name, reason=change.reason)

    def _blind(self, now_s: float, sensed: Sensed) -> str | None:
        """Say which limits nothing measures here."""
        limits, blind = self._limits, []
        if limits.power_budget_w is not None and sensed.power_w is None:
            blind.append("--power-budget: this machine does not measure its draw")
        if limits.max_temperature_c is not None and sensed.hottest_c is None:
            blind.append("--max-temperature: this machine reports no temperature")
        if limits.reserve_wh is not None and sensed.left_wh is None and now_s - self._began_s > UNHEARD_S:
            blind.append("--reserve-wh: no autopilot states its battery's energy; check --pose")
        return "; ".join(blind) + ", so that limit has no effect" if blind else None

    def _sense(self) -> Sensed:
        reading = telemetry.read(self._root)
        left_wh = self._battery_wh()
        if reading is None:  # not a board: any Linux reports its thermal zones
            return Sensed(None, max(thermal.zones(self._root).values(), default=None), left_wh)
        before, self._over_current = self._over_current, reading.over_current
        grown = [name for name, count in reading.over_current.items() if before and count > before.get(name, count)]
        return Sensed(
            None if reading.power_mw is None else reading.power_mw / 1000,
            reading.hottest_c,
            left_wh,
            reading.power_mode,
            (*reading.throttling, *(telemetry.OVER_CURRENT.get(name, name) for name in grown)),
        )
