"""UDP: datagrams as a file for FFmpeg, with the time at which each of its bytes arrived."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import threading
import time
from bisect import bisect_right
from collections import deque
from urllib.parse import parse_qs, urlsplit

_OPTIONS = frozenset({"localaddr", "pkt_size", "buffer_size", "fifo_size", "overrun_nonfatal", "reuse", "timeout"})
_MOST_WAITING = 8 << 20  # bytes: a reader that is slower than the stream must not take the memory
_REMEMBERED = 1 << 14  # datagrams: more than the largest picture has
_RECEIVE_BYTES = 2 << 20  # a burst of a keyframe; the system may grant less
_MOST_DATAGRAM = 1 << 16
_WAKE_S = 0.25
_SO_TIMESTAMPNS = 35  # of Linux: the kernel notes the arrival, however late this process wakes up
_MOST_WAKE_NS = 1_000_000_000  # more between the two is a clock that was set


def takes(address: str) -> bool:
    """Whether this reader knows every option of a ``udp://`` address; the others are left to FFmpeg's own."""
    try:
        parts = urlsplit(address)
        return parts.scheme == "udp" and parts.port is not None and set(parse_qs(parts.query)) <= _OPTIONS
    except ValueError:
        return False


class Datagrams:
    """What arrives at ``udp://@:PORT``, or at ``udp://@GROUP:PORT`` of a multicast group.

    A thread of its own empties the socket, so that nothing is lost while a picture is decoded. ``patience_s`` is how
    long ``read`` waits for a datagram, or for all of them where ``until_s`` is set.
    """

    def __init__(self, address: str, patience_s: float) -> None:
        """Bind the port. Raises OSError."""
        self.patience_s = patience_s
        self.until_s: float | None = None
        self.lost = 0  # bytes that no reader took in time
        self._socket = _bound(address)
        self._arrived = threading.Condition()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._waiting_bytes = self._position = 0
        self._starts: list[int] = []
        self._times_ns: list[int] = []
        self._closed = False
        self._thread = threading.Thread(target=self._receive, name="datagrams", daemon=True)
        self._thread.start()

    def read(self, size: int) -> bytes:
        """Return what has come, at most ``size`` bytes. Raises TimeoutError after a silence."""
        deadline_s = self.until_s or time.monotonic() + self.patience_s
        with self._arrived:
            while not self._waiting:
                left_s = deadline_s - time.monotonic()
                if self._closed or left_s <= 0:
                    raise TimeoutError(f"silent for {self.patience_s:g} s")
                self._arrived.wait(left_s)
            taken: list[bytes] = []
            while self._waiting and (not taken or size >= len(self._waiting[0][0])):
                datagram, arrived_ns = self._waiting.popleft()
                self._waiting_bytes -= len(datagram)
                size -= len(datagram)
                self._starts.append(self._position)
                self._times_ns.append(arrived_ns)
                self._position += len(datagram)
                taken.append(datagram)
        if len(self._starts) > 2 * _REMEMBERED:
            del self._starts[:_REMEMBERED], self._times_ns[:_REMEMBERED]
        return b"".join(taken)

    def arrived_ns(self, position: int) -> int | None:
        """Return when the byte at this position arrived, None where that is forgotten."""
        at = bisect_right(self._starts, position) - 1
        return self._times_ns[at] if at >= 0 else None

    def close(self) -> None:
        """Let the port go."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
        self._thread.join(4 * _WAKE_S)
        self._socket.close()

    def _receive(self) -> None:
        while not self._closed:
            try:
                datagram, ancillary, _, _ = self._socket.recvmsg(_MOST_DATAGRAM, 64)
            except TimeoutError:
                continue
            except OSError:  # a network that goes down; the silence is noticed by whoever reads
                time.sleep(_WAKE_S)
                continue
            arrived_ns = time.monotonic_ns() - _on_the_way_ns(ancillary)
            with self._arrived:
                if self._waiting_bytes + len(datagram) > _MOST_WAITING:
                    self.lost += len(datagram)
                elif datagram:
                    self._waiting.append((datagram, arrived_ns))
                    self._waiting_bytes += len(datagram)
                    self._arrived.notify()


def _on_the_way_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return how long a datagram has waited in the kernel, 0 where it does not say."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= 16:
            seconds, nanoseconds = struct.unpack_from("=qq", data)
            waited_ns = time.time_ns() - (seconds * 1_000_000_000 + nanoseconds)
            return waited_ns if 0 <= waited_ns <= _MOST_WAKE_NS else 0
    return 0


def _bound(address: str) -> socket.socket:
    parts = urlsplit(address)
    options = parse_qs(parts.query)
    host, local = parts.hostname or "", options.get("localaddr", [""])[0]
    try:
        named = ipaddress.ip_address(host)
    except ValueError:  # a name, or nothing
        named = None
    group = named if named is not None and named.is_multicast else None
    six = named is not None and named.version == 6
    one = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if group or "reuse" in options:  # else two readers of a port would take each other's datagrams
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        one.settimeout(_WAKE_S)
        _bind(one, host if group or not local else local, parts.port or 0)
        if group and six:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group.packed + bytes(4))
        elif group:
            interface = socket.inet_aton(local) if local else bytes(4)  # the one of the route
            one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group.packed + interface)
    except OSError:
        one.close()
        raise
    return one


def _bind(one: socket.socket, host: str, port: int) -> None:
    """Bind an address of this machine, or all of them where the address is the sender's."""
    try:
        one.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        one.bind(("", port))
