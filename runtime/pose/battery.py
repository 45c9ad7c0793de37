"""The aircraft's battery, from the autopilot's messages: how many watt-hours are left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

FRESH_NS = 30_000_000_000
_CELL_V = 3.7  # nominal, of lithium-ion and lithium-polymer cells
_HECTOJOULE_WH = 100 / 3600
_UNKNOWN_MV = 65535
# Between these the share that is left and the energy that was used give the capacity; nearer to full it is a guess.
_LEAST_PERCENT, _MOST_PERCENT = 1, 95


@dataclass
class _Pack:
    """One battery: what is left in percent, what was used, and its capacity where the autopilot states it."""

    percent: int = -1
    used_wh: float | None = None
    capacity_wh: float | None = None
    heard_ns: int = 0

    @property
    def left_wh(self) -> float | None:
        if self.percent < 0:
            return None
        capacity = self.capacity_wh
        if capacity is None and self.used_wh and _LEAST_PERCENT <= self.percent <= _MOST_PERCENT:
            capacity = self.used_wh / (1 - self.percent / 100)
        return None if capacity is None else capacity * self.percent / 100


class BatteryGauge:
    """Adds up the packs of BATTERY_STATUS; BATTERY_INFO and SMART_BATTERY_INFO state capacities.

    Without a stated capacity it is derived from the energy that was used and the share that is left, once a twentieth
    was used.
    """

    def __init__(self) -> None:
        self._packs: dict[int, _Pack] = {}

    def take(self, message: Any, arrived_ns: int) -> None:
        """Take what one message says; messages that say nothing of a battery are ignored."""
        match message.get_type():
            case "BATTERY_STATUS":
                pack = self._packs.setdefault(message.id, _Pack())
                pack.percent, pack.heard_ns = message.battery_remaining, arrived_ns
                pack.used_wh = _used_wh(message)
            case "BATTERY_INFO":
                capacity = message.nominal_voltage * message.full_charge_capacity
                self._state_capacity(message.id, capacity)
            case "SMART_BATTERY_INFO":
                capacity = message.capacity_full / 1000 * message.cells_in_series * _CELL_V
                self._state_capacity(message.id, capacity)

    def left_wh(self, now_ns: int) -> float | None:
        """Return what is left in all packs; None where none was heard for 30 s, or a pack's content is unknown."""
        fresh = [pack for pack in self._packs.values() if pack.heard_ns and now_ns - pack.heard_ns <= FRESH_NS]
        left = [pack.left_wh for pack in fresh]
        return sum(wh for wh in left if wh is not None) if left and None not in left else None

    def _state_capacity(self, number: int, capacity_wh: float) -> None:
        if math.isfinite(capacity_wh) and capacity_wh > 0:
            self._packs.setdefault(number, _Pack()).capacity_wh = capacity_wh


def _used_wh(message: Any) -> float | None:
    if message.energy_consumed >= 0:
        return float(message.energy_consumed * _HECTOJOULE_WH)
    cells = [millivolts for millivolts in message.voltages if 0 < millivolts < _UNKNOWN_MV]
    if message.current_consumed < 0 or not cells:
        return None
    return float(message.current_consumed / 1000 * sum(cells) / 1000)
