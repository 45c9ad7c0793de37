"""A socket with one deadline for everything that is read and written, however slowly the other side sends."""

from __future__ import annotations

import io
import socket
import time
from typing import Any


class DeadlineSocket:
    """A connected socket whose reads and writes raise TimeoutError from ``until_s`` (of the monotonic clock) on."""

    def __init__(self, connected: socket.socket, within_s: float) -> None:
        self.until_s = time.monotonic() + within_s
        self._connected = connected

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        """Return a reader, as http.client and socketserver ask for it."""
        self._connected._io_refs += 1  # type: ignore[attr-defined]  # so that close() waits for the reader, as in makefile
        return io.BufferedReader(socket.SocketIO(self, "r"))  # type: ignore[arg-type]

    def recv_into(self, buffer: bytearray) -> int:
        """Read, until the deadline."""
        self._connected.settimeout(self._left_s())
        return self._connected.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """Write, until the deadline."""
        self._connected.settimeout(self._left_s())
        self._connected.sendall(data)

    def settimeout(self, within_s: float | None) -> None:
        """Ignore the time limit of a single operation: the deadline limits all of them."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected, name)

    def _left_s(self) -> float:
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the other side is too slow")
        return left_s
