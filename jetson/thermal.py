"""Temperatures of the thermal zones, and active cooling devices."""

from __future__ import annotations

from pathlib import Path

from overflight.jetson import sysfs

# Orin's hardware throttles from 101 °C and shuts down a few degrees later; software throttling starts below that.
HOT_C = 85.0
CRITICAL_C = 97.0
_PLAUSIBLE_C = (-60.0, 150.0)


def zones(root: Path = Path("/")) -> dict[str, float]:
    """Read every active zone, °C by name; a powered-down unit reads -256 °C or fails, and is left out."""
    found: dict[str, float] = {}
    for zone in sysfs.entries(root / "sys/class/thermal", "thermal_zone*"):
        millidegrees = sysfs.number(zone / "temp")
        name = (sysfs.text(zone / "type") or zone.name).removesuffix("-thermal").lower()
        if millidegrees is not None and _PLAUSIBLE_C[0] < millidegrees / 1000 < _PLAUSIBLE_C[1]:
            found[name] = millidegrees / 1000
    return found


def throttling(root: Path = Path("/")) -> list[str]:
    """List the cooling devices that slow a clock down now; fans are not counted."""
    return [
        name
        for device in sysfs.entries(root / "sys/class/thermal", "cooling_device*")
        if (name := sysfs.text(device / "type") or device.name)
        and "fan" not in name
        and (sysfs.number(device / "cur_state") or 0) > 0
    ]
