"""Telling the service manager that the flight is alive: systemd's readiness and watchdog protocol."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Sends ``sd_notify`` datagrams; does nothing where no service manager listens.

    The watchdog is fed by ``alive`` alone, and that is called for processed frames alone: a flight that no longer sees
    is restarted, however busy its threads may look.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET")
        interval_us = os.environ.get("WATCHDOG_USEC")
        self._address = None if not address else ("\0" + address[1:] if address.startswith("@") else address)
        self._interval_ns = int(interval_us) * 1000 // 3 if interval_us else 0
        self._fed_ns = 0

    def say(self, *lines: str) -> None:
        """Send state lines such as ``READY=1``; a service manager that went away is no reason to stop."""
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return

    def alive(self, status: str) -> None:
        """Feed the watchdog, three times per interval at most."""
        now_ns = time.monotonic_ns()
        if self._interval_ns and now_ns - self._fed_ns >= self._interval_ns:
            self._fed_ns = now_ns
            self.say("WATCHDOG=1", f"STATUS={status}")
