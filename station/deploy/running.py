"""The running flight: whether it may be disturbed, how it is restarted, and whether it became fresh again."""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.jetson.service import UNIT, systemd_runs
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.directory_lock import is_locked
from overflight.runtime.flight.gauges import Status
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from overflight.station.deploy.deployments import Deployment

PORT = 9180
ANSWER_S = 5.0
POLL_S = 0.5
PROOF_S = 3.0  # how long a flight must stay fresh
HEARD_S = 3.0
_MOST_BYTES = 65536
_MOST_FLIGHTS = 100


@dataclass(frozen=True)
class Running:
    """The flight of this machine, seen through its health port.

    ``restart`` is the command that restarts it; when None, systemd's, or a signal to the flight where this user may not
    ask systemd.
    """

    port: int = PORT
    restart: str | None = None
    autopilot: str | None = None

    def status(self) -> Status | None:
        """Return what the flight says of itself, or None where none answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", "/status")
            answer = connection.getresponse()
            return decode_json(answer.read(_MOST_BYTES), Status) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            return None
        finally:
            connection.close()

    def refuse_in_flight(self, flights: Path) -> None:
        """Refuse while the autopilot says armed, or a flight goes on and no autopilot says that it is disarmed.

        A flight without a health port is found by the lock on its directory below ``flights``. Raises OverflightError.
        """
        status = self.status()
        armed = _listen(self.autopilot) if self.autopilot is not None else None if status is None else status.armed
        if armed:
            raise OverflightError("the autopilot says armed; land and disarm, or pass --force")
        if self.autopilot is not None and armed is None:
            raise OverflightError(f"no autopilot heard on {self.autopilot} within {HEARD_S:g} s; or pass --force")
        going_on = status.flight if status is not None else _locked(flights)
        if going_on is not None and armed is None:
            raise OverflightError(
                f"a flight goes on ({going_on}) and no autopilot says that it is disarmed; end it, or pass --force"
            )

    def apply(self, within_s: float) -> str:
        """Restart the flight, so that it uses what is current; return how. Raises OverflightError."""
        status = self.status()
        if self.restart is not None:
            command = shlex.split(self.restart)
        elif (Path("/") / UNIT).exists() and systemd_runs() and os.getuid() == 0:
            command = ["systemctl", "restart", UNIT.stem]
        elif status is not None and status.pid:
            return _end(status.pid)
        else:
            return ""
        if not command:
            return ""
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=within_s, user=os.getuid()
            )
        except subprocess.TimeoutExpired:
            return shlex.join(command)  # the flight itself shows whether it came up
        except OSError as error:
            raise UsageError(f"--restart {self.restart}: {error.strerror}; expected a command") from error
        failed = f" ({done.stderr.strip()[-200:]})" if done.returncode else ""
        return f"{shlex.join(command)}{failed}"

    def wait_until_fresh(self, deployment: Deployment, within_s: float) -> str | None:
        """Wait until the flight observes with a deployment, and goes on so; return what is missing after the time."""
        end = time.monotonic() + within_s
        fresh_since: float | None = None
        while True:
            missing = _missing(self.status(), deployment)
            now = time.monotonic()
            if missing is None:
                fresh_since = fresh_since or now
                if now - fresh_since >= PROOF_S:
                    return None
            else:
                fresh_since = None
            if now > end:
                return missing or "it was not fresh for long enough"
            time.sleep(POLL_S)

    def wait_for_bank(self, deployment: Deployment, within_s: float) -> bool:
        """Wait until a flight that watches its bank has taken a new one; return whether it did."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if _missing(self.status(), deployment) is None:
                return True
            time.sleep(POLL_S)
        return False


def _locked(flights: Path) -> str | None:
    """Return a flight directory that is being written now, among the newest, or None."""
    newest = sorted(flights.glob("*/"), reverse=True)[:_MOST_FLIGHTS]
    return next((str(directory) for directory in newest if is_locked(directory)), None)


def _missing(status: Status | None, deployment: Deployment) -> str | None:
    if status is None:
        return "no flight answers on the health port"
    if status.bundle != deployment.bundle:
        return f"the flight uses bundle {status.bundle[:8]}"
    if not status.fresh:
        return f"no fresh observation{f': {status.trouble}' if status.trouble else ''}"
    if not deployment.bank.startswith(status.bank or "?"):
        return f"the flight uses bank {status.bank[:8]}"
    return None


def _end(pid: int) -> str:
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        raise OverflightError(
            f"the flight (process {pid}) cannot be ended: {error.strerror}; name a command with --restart, or use sudo"
        ) from error
    return f"ended process {pid}, which its service restarts"


def _listen(address: str) -> bool | None:
    """Listen for an autopilot's heartbeat; return whether it says armed, or None where none is heard."""
    from overflight.runtime.pose.autopilot import Address, Autopilot

    autopilot = Autopilot(Address.parse(address))
    try:
        end = time.monotonic() + HEARD_S
        while time.monotonic() < end and autopilot.armed is None:
            time.sleep(0.1)
        return autopilot.armed
    finally:
        autopilot.close()
