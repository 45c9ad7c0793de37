"""Health over HTTP on loopback: live, ready, fresh, status, Prometheus metrics, and the door for a new label bank."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.errors import OverflightError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.flight.control_token import ControlToken
    from overflight.runtime.records import Observation

BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FRESH_S = 5.0
_MOST_BANK_BYTES = 64_000_000


class Status(msgspec.Struct, frozen=True):
    """What ``GET /status`` says: whether frames are observed, of which flight, with what, and whether motors run.

    ``armed`` is None where no autopilot is heard.
    """

    fresh: bool
    observed: int
    trouble: str | None
    armed: bool | None
    flight: str
    bundle: str
    bank: str


class Gauges:
    """What the flight thread counts and the health server reads; single assignments, so no lock is held in flight."""

    def __init__(self) -> None:
        self.ready = False
        self.observed = 0
        self.events = 0
        self.last_ns = 0
        self.label: str | None = None
        self.dropped: Counter[str] = Counter()
        self.unrecorded: Counter[str] = Counter()
        self.trouble: str | None = None
        self.bank = ""
        self.flight = ""
        self.bundle = ""
        self.armed: Callable[[], bool | None] = lambda: None
        self._ages = [0] * (len(BUCKETS_S) + 1)
        self._age_sum_s = 0.0
        self._engine_sum_s = 0.0

    def observe(self, observation: Observation) -> None:
        """Count one observation."""
        self.ready = True
        self.observed += 1
        self.last_ns = time.monotonic_ns()
        self.label = observation.label
        self.bank = observation.bank
        self.dropped.update(observation.dropped)
        age_s = observation.age_ns / 1e9
        self._ages[bisect_left(BUCKETS_S, age_s)] += 1
        self._age_sum_s += age_s
        self._engine_sum_s += observation.costs.engine_ns / 1e9

    @property
    def fresh(self) -> bool:
        """Whether there was an observation within the last seconds."""
        return self.ready and time.monotonic_ns() - self.last_ns <= FRESH_S * 1e9

    def status(self) -> Status:
        """Return what ``GET /status`` answers."""
        return Status(self.fresh, self.observed, self.trouble, self.armed(), self.flight, self.bundle, self.bank)

    def metrics(self) -> str:
        """Return the Prometheus text exposition, in base units."""
        lines = [
            *_metric("overflight_observations_total", "counter", "Frames observed.", {"": self.observed}),
            *_metric("overflight_events_total", "counter", "Events told.", {"": self.events}),
            *_metric(
                "overflight_dropped_total",
                "counter",
                "Frames not observed, by reason.",
                {f'{{reason="{reason}"}}': count for reason, count in sorted(self.dropped.items())},
            ),
            *_metric(
                "overflight_unrecorded_total",
                "counter",
                "Rows that the disk did not take, by table.",
                {f'{{table="{table}"}}': count for table, count in sorted(self.unrecorded.items())},
            ),
            *_metric(
                "overflight_engine_seconds_total", "counter", "Time in the engine.", {"": round(self._engine_sum_s, 6)}
            ),
            *_metric("overflight_fresh", "gauge", "1 while observations are recent.", {"": int(self.fresh)}),
            "# HELP overflight_age_seconds Time from capture to decision.",
            "# TYPE overflight_age_seconds histogram",
        ]
        total = 0
        for bound, count in zip((*BUCKETS_S, "+Inf"), self._ages, strict=True):
            total += count
            lines.append(f'overflight_age_seconds_bucket{{le="{bound}"}} {total}')
        lines += [f"overflight_age_seconds_sum {self._age_sum_s:.6f}", f"overflight_age_seconds_count {total}"]
        return "\n".join(lines) + "\n"


class HealthServer:
    """Serves a flight's gauges on 127.0.0.1; ``POST /bank`` with the ``token`` hands a bank to ``take_bank``."""

    def __init__(self, gauges: Gauges, port: int, take_bank: Callable[[bytes], str], token: ControlToken) -> None:
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(gauges, take_bank, token))
        except OSError as error:
            raise UsageError(f"port {port}: {error.strerror}; give another with --health") from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _metric(name: str, kind: str, text: str, values: dict[str, float]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{at} {v}" for at, v in values.items())]


def _handler(gauges: Gauges, take_bank: Callable[[bytes], str], token: ControlToken) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            match self.path:
                case "/live":
                    self._answer(True, "live")
                case "/ready":
                    self._answer(gauges.ready, "ready" if gauges.ready else gauges.trouble or "no frame observed yet")
                case "/fresh":
                    self._answer(gauges.fresh, "fresh" if gauges.fresh else gauges.trouble or "no recent observation")
                case "/status":
                    self._send(200, msgspec.json.encode(gauges.status()).decode() + "\n", "application/json")
                case "/metrics":
                    self._send(200, gauges.metrics(), "text/plain; version=0.0.4")
                case _:
                    self._send(404, "expected /live, /ready, /fresh, /status or /metrics\n")

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != "/bank" or not 0 < length <= _MOST_BANK_BYTES:
                self._send(404 if self.path != "/bank" else 413, "expected POST /bank with a label bank\n")
            elif self.headers.get("Origin") is not None:  # a page in a browser on this machine is not the operator
                self._send(403, "not from a browser\n")
            elif not token.allows(self.headers.get("Authorization")):
                self._send(401, f"expected the header 'Authorization: Bearer TOKEN', with the token in {token.path}\n")
            else:
                try:
                    self._send(200, take_bank(self.rfile.read(length)) + "\n")
                except OverflightError as error:
                    self._send(409, f"{error}\n")

        def _answer(self, good: bool, text: str) -> None:
            self._send(200 if good else 503, text + "\n")

        def _send(self, code: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            content = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            return  # a probe every second is no news

    return Handler
