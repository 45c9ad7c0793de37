"""UDP as a file: every byte's arrival, silence, a port that is taken, and bare streams without time stamps."""

from __future__ import annotations

import io
import socket
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.sources import datagrams, network
from overflight.runtime.sources.datagrams import Datagrams, takes
from overflight.runtime.sources.network import LiveVideo


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def send(port: int, *parts: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for part in parts:
            one.sendto(part, ("127.0.0.1", port))


def test_every_byte_has_the_time_at_which_it_came() -> None:
    """Not the time at which it was read: whoever reads late knows all the same how old a picture is."""
    port = free_port()
    feed = Datagrams(f"udp://@127.0.0.1:{port}", 1.0)
    try:
        began_ns = time.monotonic_ns()
        send(port, b"a" * 10, b"b" * 20)
        time.sleep(0.05)
        send(port, b"c" * 5)
        time.sleep(0.05)
        read_ns = time.monotonic_ns()
        assert feed.read(30) == b"a" * 10 + b"b" * 20  # a datagram that does not fit whole is left
        assert feed.read(100) == b"c" * 5
        first, second, third = (feed.arrived_ns(at) for at in (9, 10, 30))
        assert first is not None
        assert second is not None
        assert third is not None
        assert began_ns <= first <= second < third < read_ns - 40_000_000
        assert third - second > 40_000_000
        assert feed.arrived_ns(-1) is None
    finally:
        feed.close()


def test_silence_ends_and_a_port_is_not_shared() -> None:
    """Two readers would take each other's datagrams."""
    port = free_port()
    feed = Datagrams(f"udp://127.0.0.1:{port}", 0.05)
    try:
        with pytest.raises(TimeoutError):
            feed.read(10)
        with pytest.raises(OSError, match="in use"):
            Datagrams(f"udp://127.0.0.1:{port}", 1.0)
    finally:
        feed.close()
    Datagrams(f"udp://127.0.0.1:{port}", 1.0).close()


def test_a_slow_reader_does_not_take_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted."""
    monkeypatch.setattr(datagrams, "_MOST_WAITING", 1000)
    port = free_port()
    feed = Datagrams(f"udp://@:{port}", 1.0)
    try:
        send(port, *[b"x" * 400] * 5)
        deadline = time.monotonic() + 5
        while feed.lost < 1200 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert feed.lost == 1200
        assert feed.read(10_000) == b"x" * 800
    finally:
        feed.close()


def test_a_group_is_joined_and_a_senders_address_is_no_error() -> None:
    """The address of the sender is not one of this machine; then all of them are bound."""
    port = free_port()
    feed = Datagrams(f"udp://@239.255.77.77:{port}?localaddr=127.0.0.1", 5.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        one.sendto(b"group", ("239.255.77.77", port))
    assert feed.read(100) == b"group"
    feed.close()
    feed = Datagrams(f"udp://192.0.2.1:{port}", 5.0)
    send(port, b"anybody")
    assert feed.read(100) == b"anybody"
    feed.close()


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("udp://@:5600", True),
        ("udp://@239.1.1.1:5600?localaddr=10.0.0.2&reuse=1", True),
        ("udp://[::1]:5600?pkt_size=1316", True),
        ("udp://@239.1.1.1:5600?sources=10.0.0.9", False),  # FFmpeg's own reader knows these
        ("udp://@:port", False),
        ("tcp://10.0.0.1:5600", False),
    ],
)
def test_other_options_are_left_to_ffmpeg(address: str, taken: bool) -> None:
    """No option of an address is passed over in silence."""
    assert takes(address) is taken


def bare_stream(codec: str, options: dict[str, str]) -> list[bytes]:
    av = pytest.importorskip("av")
    coder = av.CodecContext.create(codec, "w")
    coder.width, coder.height, coder.pix_fmt, coder.time_base = 96, 64, "yuv420p", Fraction(1, 25)
    coder.gop_size, coder.options = 5, options
    generator = np.random.default_rng(0)
    packets: list[bytes] = []
    for number in range(30):
        picture = av.VideoFrame.from_ndarray(generator.integers(0, 255, (96, 96), np.uint8), "yuv420p")
        picture.pts = number
        packets += [bytes(packet) for packet in coder.encode(picture)]
    return packets


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_bare_stream_is_read_picture_by_picture(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As single-board computers send it: no container, no time stamps, borders only where a parser finds them."""
    monkeypatch.setattr(network, "READ_S", 1.0)
    quiet = {"preset": "ultrafast", "tune": "zerolatency"} | (
        {"x265-params": "log-level=none:pools=none:frame-threads=1"} if "5" in codec else {}
    )
    packets = bare_stream(codec, quiet)
    port = free_port()

    def push() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for packet in packets:
                stream = io.BytesIO(packet)
                while part := stream.read(1316):
                    one.sendto(part, ("127.0.0.1", port))
                time.sleep(0.02)

    source = LiveVideo(f"udp://@127.0.0.1:{port}", "bare")
    threading.Timer(0.2, push).start()
    ages_ns = []
    with pytest.raises(SourceError, match="silent"):
        for frame in source.frames():
            ages_ns.append(time.monotonic_ns() - frame.captured_ns)  # noqa: PERF401 - what came before the end counts
    assert len(ages_ns) > 14
    assert source.take_dropped()["damaged"] < 15  # before the first keyframe that is whole
    assert np.median(ages_ns[-10:]) > 5_000_000  # each comes out when the next begins, and says so
