"""Age: with an engine far slower than the camera, the newest decision stays young for as long as it is flown.

``OVERFLIGHT_ENDURANCE_S=600 pytest -m slow -s tests/endurance/test_age.py`` flies ten minutes. The sender draws
its monotonic clock into every picture, so ages are from the making of the picture to the decision: encoder, network
and decoder included, and no arrival stamp is trusted.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.engines import EngineInfo
from overflight.runtime.flight.directory import Flight
from overflight.runtime.stream import Stream

pytest.importorskip("cv2")
pytest.importorskip("av")
SECONDS = float(os.environ.get("OVERFLIGHT_ENDURANCE_S", "15"))
ENGINE_S, FPS, WIDTH, HEIGHT = 0.2, 25, 1280, 720
CELL, BITS = 20, 40
SENDER = f"""
import sys, time
from fractions import Fraction
import av
import numpy as np
rng = np.random.default_rng(0)
scene = rng.integers(60, 200, ({HEIGHT} // 8, {WIDTH} // 4), np.uint8).repeat(8, 0).repeat(8, 1)
grey = np.full(({HEIGHT} * 3 // 2, {WIDTH}), 128, np.uint8)
coder = av.CodecContext.create("libx264", "w")
coder.width, coder.height, coder.pix_fmt = {WIDTH}, {HEIGHT}, "yuv420p"
coder.time_base, coder.framerate = Fraction(1, 90000), Fraction({FPS})
coder.bit_rate, coder.gop_size, coder.thread_count = 6_000_000, {FPS}, 1
coder.options = {{"preset": "ultrafast", "tune": "zerolatency"}}
outputs = [av.open(f"udp://127.0.0.1:{{port}}?pkt_size=1316", "w", format="mpegts", options={{"flush_packets": "1"}})
           for port in sys.argv[1:]]
streams = [output.add_stream("libx264", rate={FPS}) for output in outputs]
for stream in streams:
    stream.width, stream.height, stream.pix_fmt = {WIDTH}, {HEIGHT}, "yuv420p"
began = due = time.monotonic()
number = 0
while True:
    due = max(due + 1 / {FPS}, time.monotonic() - 1 / {FPS})  # a camera that is late skips pictures
    time.sleep(max(0, due - time.monotonic()))
    shift = number * 8 % {WIDTH}
    grey[:{HEIGHT}] = scene[:, shift : shift + {WIDTH}]
    code = time.monotonic_ns() // 1000
    for bit in range({BITS}):
        left = bit * {CELL}
        grey[:{CELL}, left : left + {CELL}] = 235 if code >> bit & 1 else 16
    picture = av.VideoFrame.from_ndarray(grey, "yuv420p")
    picture.pts, picture.time_base = int((code / 1e6 - began) * 90000), Fraction(1, 90000)
    for packet in coder.encode(picture):
        for output, stream in zip(outputs, streams):
            copy = av.Packet(bytes(packet))
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
            copy.is_keyframe = packet.is_keyframe
            output.mux(copy)
    number += 1
"""
PLAIN = f"""
import sys, time
import cv2
sys.path.insert(0, sys.argv[2])
from test_age import made_ns
capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG)
while True:
    read, pixels = capture.read()
    if not read:
        break
    time.sleep({ENGINE_S})
    print(time.monotonic_ns() - made_ns(pixels), flush=True)
"""


class SlowEngine:
    """An engine that takes 200 ms and answers one direction."""

    info = EngineInfo("onnxruntime-cpu", "fp32", "slow", "0", "0" * 64)
    side, width = 32, 3

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(ENGINE_S)
        return np.array([[1, 0, 0]] * len(frames), np.float32)

    def close(self) -> None:
        pass


def made_ns(pixels: NDArray[np.uint8]) -> int:
    """Read the sender's monotonic clock off a picture."""
    middle = CELL // 2
    cells = pixels[middle - 4 : middle + 4, : BITS * CELL, 1].reshape(8, BITS, CELL)[:, :, middle - 4 : middle + 4]
    bits = cells.mean(axis=(0, 2)) > 128
    return sum(1 << int(bit) for bit in np.flatnonzero(bits)) * 1000


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def described(ages_ms: list[float]) -> str:
    p50, p95 = np.percentile(ages_ms, [50, 95])
    return f"{len(ages_ms)} decisions, age p50 {p50:.0f} p95 {p95:.0f} max {max(ages_ms):.0f} ms"


def start_sender(ports: list[int]) -> subprocess.Popen[bytes]:
    """Send as a camera does: each picture's time stamp is when it was made, however late the sender runs."""
    return subprocess.Popen([sys.executable, "-c", SENDER, *map(str, ports)])


@pytest.mark.slow
def test_the_newest_decision_stays_young(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """Next to it, in the same run over the same pictures, a plain OpenCV loop with the same engine time."""
    ports = [free_port(), free_port()]
    sender = start_sender(ports)
    plain_ages = (tmp_path / "plain").open("w+")
    plain = subprocess.Popen(
        [sys.executable, "-c", PLAIN, f"udp://@127.0.0.1:{ports[1]}", str(Path(__file__).parent)],
        stdout=plain_ages,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": "src"},
        cwd=Path(__file__).parents[2],
    )
    overflight = Overflight(colour_bundle, SlowEngine(), colour_bank)
    where = f"udp://@127.0.0.1:{ports[0]}"
    stream = Stream(where, overflight.observer)
    flight = Flight.begin(tmp_path / "flight", where, overflight)
    ages_ms: list[float] = []
    errors_ms: list[float] = []
    stalest_ms: list[float] = []
    own_ms: list[float] = []
    engine_ms: list[float] = []
    began, previous = time.monotonic(), 0
    try:
        for sight in stream.results():
            now_ns, made = time.monotonic_ns(), made_ns(sight.frame.pixels)
            flight.write(sight)
            ages_ms.append((now_ns - made) / 1e6)
            errors_ms.append((sight.frame.captured_ns - made) / 1e6)
            own_ms.append(sight.observation.age_ns / 1e6)
            engine_ms.append(sight.observation.costs.engine_ns / 1e6)
            if previous:
                stalest_ms.append((now_ns - previous) / 1e6)
            previous = made
            if time.monotonic() - began > SECONDS:
                break
    finally:
        stream.close()
        flight.end("stopped", stream)
        for process in (plain, sender):
            process.kill()
            process.wait()
    plain_ages.seek(0)
    loop_ms = [int(line) / 1e6 for line in plain_ages.read().splitlines()]
    plain_ages.close()
    circumstance = f"{SECONDS:g} s of {WIDTH}x{HEIGHT} at {FPS} fps, H.264 over UDP, engine {ENGINE_S * 1e3:g} ms"
    print(f"\n{circumstance}, {dict(stream.dropped)}")
    print(f"overflight:         {described(ages_ms)} (picture made to decision)")
    print(f"  by the record:    {described(own_ms)}")
    wrong_ms = float(np.percentile(np.abs(errors_ms), 95))
    print(f"  error of the record's age: p50 {np.median(errors_ms):.0f} ms, p95 of its size {wrong_ms:.0f} ms")
    print(f"  until superseded: {described(stalest_ms)}")
    print(f"plain OpenCV loop:  {described(loop_ms)}; the last {loop_ms[-1]:.0f} ms")
    # On a shared machine an engine of 200 ms can take longer: compare with what it took.
    bound_ms = [2 * took + 1e3 / FPS for took in engine_ms]
    kept = np.mean([own <= bound for own, bound in zip(own_ms, bound_ms, strict=True)])
    engine = f"engine p50 {np.median(engine_ms):.0f} p95 {np.percentile(engine_ms, 95):.0f} ms"
    print(f"{engine}; {kept:.2%} of decisions within 2 x engine + one frame of the capture; load {os.getloadavg()}")
    assert wrong_ms <= 1e3 / FPS + 20
    assert kept > 0.9
    assert np.median(ages_ms[-20:]) < np.median(loop_ms[-20:])
