"""MAVLink telemetry: a live autopilot on loopback, a ground station's log, and what the messages mean.

Covers: runtime/pose/telemetry.py, runtime/pose/tlog.py.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.pose.autopilot import Address, Autopilot
from overflight.runtime.pose.telemetry import Telemetry
from overflight.runtime.pose.tlog import read_tlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

os.environ.setdefault("MAVLINK20", "1")
mavlink = pytest.importorskip("pymavlink.dialects.v20.common", reason="pymavlink is not installed")
S = 1_000_000_000
BOOT_MS = 100_000
EPOCH_US = 1_780_000_000_000_000


def said(kind: str, **fields: Any) -> Any:
    return SimpleNamespace(get_type=lambda: kind, **fields)


def fix(boot_ms: int, lat: float = -20.25, lon: float = 149.02, relative_m: float = 50.0) -> Any:
    return said(
        "GLOBAL_POSITION_INT", time_boot_ms=boot_ms, lat=round(lat * 1e7), lon=round(lon * 1e7), alt=150_000,
        relative_alt=round(relative_m * 1000), vx=1000, vy=0, vz=0, hdg=9000,
    )  # fmt: skip


def attitude(boot_ms: int, yaw: float = 1.0) -> Any:
    return said("ATTITUDE", time_boot_ms=boot_ms, yaw=yaw, pitch=0.0, roll=0.0)


def heard(*messages: tuple[Any, float]) -> Telemetry:
    """Make telemetry of messages with their arrival in seconds."""
    telemetry = Telemetry("monotonic")
    for message, arrived_s in messages:
        telemetry.take(message, round(arrived_s * S))
    return telemetry


def test_a_delayed_message_is_put_back_to_when_it_was_true() -> None:
    """Boot time plus the least delay: a fix that waited 0.8 s on the line holds for when it was made."""
    telemetry = heard((fix(1000), 10.0), (fix(2000), 11.0), (fix(3000), 12.8), (fix(4000), 13.0))
    assert [round(t / S, 2) for t in telemetry.track.times_ns] == [10.0, 11.0, 12.0, 13.0]


def test_a_rebooted_autopilot_starts_a_new_clock() -> None:
    """After the boot clock fell back, fixes are again near their arrival."""
    telemetry = heard((fix(500_000), 10.0), (fix(1000), 30.0))
    assert [round(t / S, 2) for t in telemetry.track.times_ns] == [10.0, 30.0]


def test_utc_comes_from_the_autopilot() -> None:
    """SYSTEM_TIME gives poses the true time, whatever the companion's own clock says."""
    clock = said("SYSTEM_TIME", time_unix_usec=EPOCH_US, time_boot_ms=1000)
    pose = heard((clock, 10.0), (fix(2000), 11.0)).track.at(11 * S)
    assert pose is not None
    assert pose.utc_ns == EPOCH_US * 1000 + S


def test_a_gimbal_s_yaw_is_against_the_earth() -> None:
    """A yaw in the vehicle's frame is turned by the vehicle's, one in the earth's frame is taken as it is."""
    level = (1.0, 0.0, 0.0, 0.0)
    for flags, yaw in ((32, 90.0), (64, 0.0), (16, 0.0), (0, 90.0)):
        gimbal = said("GIMBAL_DEVICE_ATTITUDE_STATUS", time_boot_ms=1000, q=level, flags=flags)
        pose = heard((attitude(1000, 1.5707963), 10.0), (fix(1000), 10.0), (gimbal, 10.0)).track.at(10 * S)
        assert pose is not None
        assert pose.gimbal is not None
        assert pose.gimbal.yaw_deg == pytest.approx(yaw, abs=1e-4), flags


def test_an_old_mount_reports_centidegrees() -> None:
    """MOUNT_STATUS is pitch, roll, yaw against the nose."""
    mount = said("MOUNT_STATUS", pointing_a=-9000, pointing_b=0, pointing_c=1000)
    pose = heard((attitude(1000, 0.0), 10.0), (fix(1000), 10.0), (mount, 10.0)).track.at(10 * S)
    assert pose is not None
    assert pose.gimbal is not None
    assert (pose.gimbal.pitch_deg, pose.gimbal.yaw_deg) == (-90.0, 10.0)


def test_a_rangefinder_beats_the_barometer_while_it_sees_ground() -> None:
    """Height is above ground while a downward reading is fresh and in range, above take-off otherwise."""
    near = said("DISTANCE_SENSOR", orientation=25, min_distance=20, max_distance=5000, current_distance=4200)
    far = said("DISTANCE_SENSOR", orientation=25, min_distance=20, max_distance=5000, current_distance=5000)
    forward = said("DISTANCE_SENSOR", orientation=0, min_distance=20, max_distance=5000, current_distance=300)
    for reading, expected in ((near, (42.0, "ground")), (far, (50.0, "takeoff")), (forward, (50.0, "takeoff"))):
        pose = heard((fix(1000), 10.0), (reading, 10.1), (fix(1200), 10.2)).track.at(round(10.2 * S))
        assert pose is not None
        assert (pose.height_m, pose.height_above) == expected
    late = heard((fix(1000), 10.0), (near, 10.1), (fix(3000), 12.0)).track.at(12 * S)
    assert late is not None
    assert late.height_above == "takeoff"


def test_no_fix_gives_no_position() -> None:
    """While the receiver has no fix nothing is added, so the track turns stale; its own accuracy is kept."""
    lost = said("GPS_RAW_INT", fix_type=1, h_acc=0)
    good = said("GPS_RAW_INT", fix_type=3, h_acc=1500)
    telemetry = heard((good, 9.9), (fix(1000), 10.0), (lost, 10.5), (fix(2000), 11.0), (fix(3000), 12.0))
    pose = telemetry.track.at(12 * S)
    assert pose is not None
    assert (pose.quality, len(telemetry.track)) == ("stale", 1)
    first = telemetry.track.at(10 * S)
    assert first is not None
    assert first.h_acc_m == 1.5


@pytest.fixture
def address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def flying(address: str) -> Iterator[list[Any]]:
    """Fly a pymavlink vehicle towards the address; yield what it hears."""
    from pymavlink import mavutil

    line = mavutil.mavlink_connection(f"udpout:{address}", source_system=7, dialect="common")
    ground = mavutil.mavlink_connection(f"udpout:{address}", source_system=255, dialect="common")
    stop, reported = threading.Event(), []

    def fly() -> None:
        began_s = time.monotonic()
        while not stop.is_set():
            boot_ms = BOOT_MS + int((time.monotonic() - began_s) * 1000)
            ground.mav.heartbeat_send(6, 8, 0, 0, 4)
            line.mav.heartbeat_send(2, 3, 0, 0, 4)
            line.mav.attitude_send(boot_ms, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0)
            line.mav.global_position_int_send(boot_ms, -202533000, 1490251000, 150_000, 50_000, 1000, 0, 0, 9000)
            message = line.recv_match(blocking=True, timeout=0.05)
            if message is not None:
                reported.append(message)

    thread = threading.Thread(target=fly, daemon=True)
    thread.start()
    yield reported
    stop.set()
    thread.join()
    line.close()
    ground.close()


def test_a_live_autopilot_fills_the_track(flying: list[Any], address: str) -> None:
    """Position and attitude arrive from the vehicle, not from the ground station; nothing is sent unasked."""
    vehicle = Autopilot(Address.parse(f"udpin:{address}"))
    deadline_s = time.monotonic() + 10
    while len(vehicle.telemetry.track) < 5 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    pose = vehicle.telemetry.track.at(time.monotonic_ns())
    vehicle.close()
    assert vehicle.system == 7
    assert pose is not None
    assert pose.lat_deg == pytest.approx(-20.2533, abs=1e-3)
    assert pose.quality in ("interpolated", "extrapolated", "fix")
    assert pose.vehicle is not None
    assert flying == []


def test_streams_are_asked_for_only_when_a_rate_is_given(flying: list[Any], address: str) -> None:
    """?rate= sends SET_MESSAGE_INTERVAL and no other command."""
    vehicle = Autopilot(Address.parse(f"udpin:{address}?rate=10"))
    deadline_s = time.monotonic() + 10
    while len(flying) < 6 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    vehicle.close()
    assert {(message.get_type(), message.command) for message in flying} == {("COMMAND_LONG", 511)}
    assert {message.param2 for message in flying} == {100_000.0}


@pytest.mark.parametrize("uri", ["mavlink:", "udpin:0.0.0.0:1?speed=3", "udpin:0.0.0.0:1?baud=fast"])
def test_a_wrong_address_is_reported(uri: str) -> None:
    """The address says what it may hold."""
    with pytest.raises(UsageError, match=r"expected|numbers"):
        Address.parse(uri)


def tlog(count: int = 20) -> bytes:
    """Write a ground station's log: 8 bytes of time before each message."""
    sender = mavlink.MAVLink(None, srcSystem=1, srcComponent=1)
    raw = b""
    for i in range(count):
        for message in (
            mavlink.MAVLink_attitude_message(BOOT_MS + i * 100, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
            mavlink.MAVLink_global_position_int_message(
                BOOT_MS + i * 100, -202533000 + i * 10, 1490251000, 150_000, 50_000, 100, 0, 0, 9000
            ),
        ):
            raw += struct.pack(">Q", EPOCH_US + i * 100_000) + message.pack(sender)
    return raw


def test_a_tlog_is_a_track_in_utc(tmp_path: Path) -> None:
    """Positions at the station's times, interpolated between."""
    path = tmp_path / "flight.tlog"
    path.write_bytes(tlog())
    track = read_tlog(path)
    assert (track.clock, len(track), track.times_ns[0]) == ("utc", 20, EPOCH_US * 1000)
    pose = track.at(EPOCH_US * 1000 + 150_000_000)
    assert pose is not None
    assert pose.lat_deg == pytest.approx(-20.2533 + 1.5e-6)


def test_a_time_may_contain_the_bytes_that_begin_packets(tmp_path: Path) -> None:
    """Of MAVLink 1 and 2, at every place: ArduPilot/node-mavlink#19 lost the times of such packets."""
    sender = mavlink.MAVLink(None, srcSystem=1, srcComponent=1)
    times_us = [
        EPOCH_US & ~(0xFFFF << shift) | pair << shift
        for shift in (0, 8, 16, 24)
        for pair in (0xFDFD, 0xFEFE, 0xFDFE, 0x00FE, 0xFD00)
    ]
    raw = b""
    for time_us in sorted(times_us):
        boot_ms = (time_us - min(times_us)) // 1000
        position = mavlink.MAVLink_global_position_int_message(boot_ms, 10_000_000, 1, 1000, 500, 0, 0, 0, 0)
        raw += struct.pack(">Q", time_us) + position.pack(sender)
    path = tmp_path / "flight.tlog"
    path.write_bytes(raw)
    track = read_tlog(path)
    assert list(track.times_ns) == pytest.approx([time_us * 1000 for time_us in sorted(times_us)], abs=2_000_000)
    assert not track.refused


@pytest.mark.parametrize("time_us", [2**64 - 1, 2**63, 2**63 // 1000, 2**62, 10**16])
def test_a_time_beyond_all_clocks_is_left_out(time_us: int, tmp_path: Path) -> None:
    """Not an OverflowError, and not a day in the year 300,000 (mavlink/mavlink#537: a ValueError ended the reading)."""
    sender = mavlink.MAVLink(None, srcSystem=1, srcComponent=1)
    position = mavlink.MAVLink_global_position_int_message(BOOT_MS, 10_000_000, 1, 1000, 500, 0, 0, 0, 0).pack(sender)
    path = tmp_path / "flight.tlog"
    path.write_bytes(tlog(3) + struct.pack(">Q", time_us) + position)
    track = read_tlog(path)
    assert len(track) == 3
    assert len(track.refused) == 1


@settings(max_examples=60)
@given(data=st.data())
def test_no_tlog_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A log damaged or cut off anywhere gives a track or a SourceError that names the file."""
    content = bytearray(tlog(3))
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)
    ):
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "fuzz.tlog"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert len(read_tlog(path)) > 0
    except SourceError as error:
        assert "fuzz.tlog" in str(error)


def test_a_message_that_cannot_be_taken_is_counted_and_the_next_is_read(
    flying: list[Any], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays: one odd message is no broken line."""
    vehicle = Autopilot(Address.parse(f"udpin:{address}"))
    take = vehicle.telemetry.take
    failed: list[Any] = []

    def fail_once(message: Any, arrived_ns: int) -> None:
        if not failed:
            failed.append(message)
            raise KeyError("odd")
        take(message, arrived_ns)

    monkeypatch.setattr(vehicle.telemetry, "take", fail_once)
    deadline_s = time.monotonic() + 60
    while (not failed or len(vehicle.telemetry.track) < 3) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    vehicle.close()
    assert len(vehicle.telemetry.track) >= 3
    assert vehicle.worker.faults.counts == {"KeyError": 1}
    assert vehicle.problem is None
