"""The governor: fewer frames and tiles as heat, power or the battery demands, in stated steps, and back.

It decides only; ``governor_watch.py`` reads the sensors and acts.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from overflight.runtime.errors import UsageError

SETTLE_S = 15.0  # until a step shows in temperatures and in the averaged power
HOLD_S = 30.0  # so long everything must be below its limit before a step is taken back
LONGEST_HOLD_S = 900.0
REVOKED_S = 600.0  # a step that was taken back and is needed again within this time doubles the hold
AVERAGE_S = 10.0
POWER_BACK = 0.85  # of the budget
COOLER_C = 5.0
RESERVE_BACK = 1.05
EMERGENCY_C = 5.0  # above the limit: straight to the last step


@dataclass(frozen=True)
class GovernorLimits:
    """What the user asked to keep: the module's draw in W, the hottest zone in °C, the aircraft's battery in Wh."""

    power_budget_w: float | None = None
    max_temperature_c: float | None = None
    reserve_wh: float | None = None

    def __post_init__(self) -> None:
        if self.max_temperature_c is not None and not 30 <= self.max_temperature_c <= 110:
            raise UsageError(f"--max-temperature {self.max_temperature_c:g}: expected degrees Celsius from 30 to 110")

    @property
    def set(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in (self.power_budget_w, self.max_temperature_c, self.reserve_wh))


@dataclass(frozen=True)
class Step:
    """One step: of the frames only every ``every``-th in time, of the tiles' rows and columns one in ``tiles``.

    ``tiles`` 0 is none.
    """

    name: str
    every: int = 1
    tiles: int = 1


STEPS = (Step("full"), Step("half the rate", 2), Step("a quarter of the rate", 4), Step("a tenth of the rate", 10))
TILED_STEPS = (
    Step("full"),
    Step("a quarter of the tiles", 1, 2),
    Step("no tiles", 1, 0),
    Step("no tiles, half the rate", 2, 0),
    Step("no tiles, a quarter of the rate", 4, 0),
    Step("no tiles, a tenth of the rate", 10, 0),
)


@dataclass(frozen=True)
class Sensed:
    """What is known now; None where nothing measures it. ``throttling`` names what already slows the device down."""

    power_w: float | None = None
    hottest_c: float | None = None
    left_wh: float | None = None
    power_mode: str | None = None
    throttling: tuple[str, ...] = ()


class GovernorChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change, as the journal keeps it: from which step to which, by number and name, why, and what was measured."""

    step: int
    name: str
    before: int
    reason: str
    power_w: float | None = None
    hottest_c: float | None = None
    left_wh: float | None = None
    power_mode: str | None = None


class Governor:
    """Chooses a step from what is sensed, about once a second.

    Down: one step at a time while a limit is exceeded, ``SETTLE_S`` apart; straight to the last where the limit of
    temperature is exceeded by ``EMERGENCY_C``. Up: one step when everything was well below its limits for the hold,
    which doubles whenever a step up had to be revoked soon, so that the load does not swing.
    """

    def __init__(self, limits: GovernorLimits, *, tiled: bool) -> None:
        self.steps = TILED_STEPS if tiled else STEPS
        self.number = 0
        self._limits = limits
        self._power_w: float | None = None
        self._last_s: float | None = None
        self._changed_s = float("-inf")
        self._raised_s = float("-inf")
        self._calm_since_s: float | None = None
        self._hold_s = HOLD_S
        self._mode: str | None = None

    @property
    def step(self) -> Step:
        """The step in force."""
        return self.steps[self.number]

    def update(self, now_s: float, sensed: Sensed) -> GovernorChange | None:
        """Take what is sensed and return a change of the step, or None."""
        self._average(now_s, sensed.power_w)
        if self._mode is not None and sensed.power_mode not in (None, self._mode):
            self._hold_s = HOLD_S  # what was learned in the old mode says nothing about the new one
        self._mode = sensed.power_mode or self._mode
        exceeded, calm = self._judge(sensed)
        if exceeded:
            self._calm_since_s = None
            return self._lower(now_s, sensed, exceeded)
        if not calm or not self.number:
            self._calm_since_s = None
            return None
        self._calm_since_s = self._calm_since_s if self._calm_since_s is not None else now_s
        if now_s - self._calm_since_s < self._hold_s or now_s - self._changed_s < self._hold_s:
            return None
        self._raised_s, self._calm_since_s = now_s, None
        return self._change(now_s, self.number - 1, "everything is below its limits", sensed)

    def _average(self, now_s: float, power_w: float | None) -> None:
        elapsed_s = 0.0 if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        if power_w is None or self._power_w is None:
            self._power_w = power_w if power_w is not None else self._power_w
            return
        share = min(1.0, elapsed_s / AVERAGE_S)
        self._power_w += share * (power_w - self._power_w)

    def _judge(self, sensed: Sensed) -> tuple[str, bool]:
        """Return why the load must fall, or nothing, and whether it may rise."""
        limits, reasons, calm = self._limits, [], True
        if limits.power_budget_w is not None and self._power_w is not None:
            if self._power_w > limits.power_budget_w:
                reasons.append(f"{self._power_w:.1f} W, the budget is {limits.power_budget_w:g} W")
            calm &= self._power_w <= limits.power_budget_w * POWER_BACK
        if limits.max_temperature_c is not None and sensed.hottest_c is not None:
            if sensed.hottest_c >= limits.max_temperature_c:
                reasons.append(f"{sensed.hottest_c:.0f} °C, the limit is {limits.max_temperature_c:g} °C")
            calm &= sensed.hottest_c <= limits.max_temperature_c - COOLER_C
        if limits.reserve_wh is not None and sensed.left_wh is not None:
            if sensed.left_wh <= limits.reserve_wh:
                reasons.append(f"{sensed.left_wh:.1f} Wh left, the reserve is {limits.reserve_wh:g} Wh")
            calm &= sensed.left_wh >= limits.reserve_wh * RESERVE_BACK
        if sensed.throttling:
            reasons.append(f"the device slows itself down: {', '.join(sensed.throttling)}")
        return "; ".join(reasons), calm and not reasons

    def _lower(self, now_s: float, sensed: Sensed, reason: str) -> GovernorChange | None:
        last = len(self.steps) - 1
        most_c = self._limits.max_temperature_c
        emergency = most_c is not None and sensed.hottest_c is not None and sensed.hottest_c >= most_c + EMERGENCY_C
        if self.number == last or (now_s - self._changed_s < SETTLE_S and not emergency):
            return None
        if now_s - self._raised_s < REVOKED_S:
            self._hold_s = min(self._hold_s * 2, LONGEST_HOLD_S)
        self._raised_s = float("-inf")
        return self._change(now_s, last if emergency else self.number + 1, reason, sensed)

    def _change(self, now_s: float, number: int, reason: str, sensed: Sensed) -> GovernorChange:
        before, self.number, self._changed_s = self.number, number, now_s
        power_w = None if self._power_w is None else round(self._power_w, 3)
        return GovernorChange(
            number,
            self.step.name,
            before,
            reason,
            power_w,
            sensed.hottest_c,
            None if sensed.left_wh is None else round(sensed.left_wh, 2),
            sensed.power_mode,
        )
