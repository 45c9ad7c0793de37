"""Power rails, as measured by the board's INA3221 and INA238 monitors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from overflight.jetson import sysfs

# A rail that carries the whole module, where the board has one; else the input rails of AGX Orin are added up.
_TOTALS = ("VDD_IN", "VIN")
# Fed from VIN_SYS_5V0, which includes it.
_INNER = frozenset({"VDDQ_VDD2_1V8AO"})


@dataclass(frozen=True)
class Rail:
    """One rail: its draw in milliwatts, and whether its over-current alarm is active."""

    name: str
    rail_mw: int
    alarm: bool


def read(root: Path = Path("/")) -> tuple[Rail, ...]:
    """Read every rail that is connected; empty on other computers."""
    rails: list[Rail] = []
    for chip in sysfs.entries(root / "sys/class/hwmon", "hwmon*"):
        match sysfs.text(chip / "name"):
            case "ina3221":
                rails += [rail for channel in (1, 2, 3) if (rail := _channel(chip, channel))]
            case "ina238":
                microwatts = sysfs.number(chip / "power1_input")
                rails += [] if microwatts is None else [Rail("VIN", microwatts // 1000, alarm=False)]
    return tuple(rails)


def total_mw(rails: dict[str, int]) -> int | None:
    """Draw of the whole module in milliwatts, from the draw of each rail by name; None where none is known."""
    for name in _TOTALS:
        if name in rails:
            return rails[name]
    inputs = [milliwatts for name, milliwatts in rails.items() if name not in _INNER]
    return sum(inputs) if inputs else None


def _channel(chip: Path, channel: int) -> Rail | None:
    label = sysfs.text(chip / f"in{channel}_label")
    millivolts, milliamps = sysfs.number(chip / f"in{channel}_input"), sysfs.number(chip / f"curr{channel}_input")
    if not label or label == "NC" or millivolts is None or milliamps is None:
        return None
    alarms = (sysfs.number(chip / f"curr{channel}_{kind}_alarm") for kind in ("crit", "max"))
    return Rail(label, millivolts * milliamps // 1000, any(alarm == 1 for alarm in alarms))
