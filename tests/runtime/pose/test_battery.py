"""The aircraft's battery, from messages as pymavlink packs and unpacks them."""

from __future__ import annotations

from typing import Any

import pytest

from overflight.runtime.pose.battery import FRESH_NS, BatteryGauge

mavlink = pytest.importorskip("pymavlink.dialects.v20.ardupilotmega", reason="the messages need pymavlink")


def received(message: Any) -> Any:
    """Send a message over the wire."""
    sender, receiver = mavlink.MAVLink(None), mavlink.MAVLink(None)
    (got,) = receiver.parse_buffer(bytearray(message.pack(sender)))
    return got


def status(percent: int, *, used_hj: int = -1, used_mah: int = -1, number: int = 0, cells: int = 6) -> Any:
    voltages = [3700] * min(cells, 10) + [65535] * (10 - cells)
    return received(
        mavlink.MAVLink_battery_status_message(
            number, 1, 1, 32767, voltages, 1500, used_mah, used_hj, percent, 0, 0, [0] * 4, 0, 0
        )
    )


def test_what_was_used_and_what_is_left_give_the_capacity() -> None:
    """40 % left after 60 Wh: 40 Wh left. By energy, or by charge and voltage: 2.7027 Ah at 22.2 V."""
    for message in (status(40, used_hj=2160), status(40, used_mah=2703)):
        gauge = BatteryGauge()
        gauge.take(message, 1)
        assert gauge.left_wh(2) == pytest.approx(40, abs=0.05)


def test_a_stated_capacity_is_believed() -> None:
    """Also at 100 %, where nothing was used yet."""
    gauge = BatteryGauge()
    gauge.take(status(100), 1)
    assert gauge.left_wh(2) is None
    stated = mavlink.MAVLink_smart_battery_info_message(
        0, 1, 1, 10000, 9000, 3, b"x", b"y", 0, 0, 0, 0, cells_in_series=6
    )
    gauge.take(received(stated), 1)
    assert gauge.left_wh(2) == pytest.approx(9 * 22.2)


def test_packs_add_up_and_an_unknown_one_leaves_the_sum_unknown() -> None:
    """Half a sum would look like an empty battery."""
    gauge = BatteryGauge()
    gauge.take(status(50, used_hj=1800), 1)
    gauge.take(status(50, used_hj=1800, number=1), 1)
    assert gauge.left_wh(2) == pytest.approx(100)
    gauge.take(status(-1, number=2), 1)
    assert gauge.left_wh(2) is None


@pytest.mark.parametrize("message", [status(-1), status(99, used_hj=10), status(50), status(0, used_hj=3600)])
def test_what_is_not_known_is_none(message: Any) -> None:
    """No percentage, too little used, nothing used stated, nothing left to derive from."""
    gauge = BatteryGauge()
    gauge.take(message, 1)
    assert gauge.left_wh(2) is None


def test_a_silent_autopilot_says_nothing() -> None:
    """Thirty seconds after its last message."""
    gauge = BatteryGauge()
    gauge.take(status(40, used_hj=2160), 0)
    gauge.take(status(40, used_hj=2160), 10)
    assert gauge.left_wh(10 + FRESH_NS) is not None
    assert gauge.left_wh(11 + FRESH_NS) is None
