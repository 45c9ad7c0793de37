"""Health over HTTP on loopback: live, ready, fresh, status, Prometheus metrics, and POST /bank for a new label bank.

Whatever a client does costs little: at most ``MAX_CLIENTS`` connections at once, each for at most ``REQUEST_S``; one
upload at a time, of at most ``MAX_BANK_BYTES`` and ``UPLOAD_S``.
"""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec

from overflight.runtime.deadline import DeadlineSocket
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.worker import Faults, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overflight.runtime.flight.banks import BankInUse
    from overflight.runtime.flight.control_token import ControlToken
    from overflight.runtime.flight.gauges import Gauges

MAX_CLIENTS = 16
MAX_BANK_BYTES = 64_000_000
REQUEST_S = 10.0
UPLOAD_S = 60.0
POLL_S = 0.5
CLOSE_S = 5.0


class HealthServer:
    """Serves a flight's gauges on 127.0.0.1.

    ``GET /bank`` describes the label bank in use; ``POST /bank`` with the ``token`` hands a new one to ``take_bank``.
    ``faults`` counts what went wrong in answering; ``worker`` is the thread that accepts connections.
    """

    def __init__(
        self,
        gauges: Gauges,
        port: int,
        describe_bank: Callable[[], BankInUse],
        take_bank: Callable[[bytes], str],
        token: ControlToken,
    ) -> None:
        self.faults = Faults("health request")
        try:
            self._server = _Server(port, gauges, token, self.faults)
        except OSError as error:
            raise UsageError(f"port {port}: {error.strerror}; give another with --health") from error
        self._server.describe_bank, self._server.take_bank = describe_bank, take_bank
        self.port = int(self._server.server_address[1])
        self.worker = Worker("health", self._serve)
        self.worker.start()

    def close(self) -> None:
        """Stop serving."""
        self.worker.close(CLOSE_S)
        self._server.server_close()

    def _serve(self) -> float:
        self._server.handle_request()
        return 0.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    timeout = POLL_S
    request_queue_size = 64

    describe_bank: Callable[[], BankInUse]
    take_bank: Callable[[bytes], str]

    def __init__(self, port: int, gauges: Gauges, token: ControlToken, faults: Faults) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.gauges = gauges
        self.token = token
        self.faults = faults
        self.uploading = threading.Lock()
        self._free = threading.BoundedSemaphore(MAX_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; one connection too many is closed."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Count what a handler raised; a client that hangs up or is too slow is no fault."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.faults.note(error)
            self.faults.clear()


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: _Server

    def setup(self) -> None:
        """Put one deadline on everything that the client sends and reads."""
        self.request: Any
        self._limited = self.request = DeadlineSocket(self.request, REQUEST_S)
        super().setup()

    def do_GET(self) -> None:
        """Answer a probe."""
        match self.path:
            case "/live":
                self._answer(True, "live")
            case "/ready":
                self._answer(*self.server.gauges.explain_ready())
            case "/fresh":
                self._answer(*self.server.gauges.explain_fresh())
            case "/status":
                self._send(200, msgspec.json.encode(self.server.gauges.status()).decode() + "\n", "application/json")
            case "/bank":
                bank = msgspec.json.encode(self.server.describe_bank()).decode()
                self._send(200, bank + "\n", "application/json")
            case "/picture.jpg":
                self._picture()
            case "/metrics":
                self._send(200, self.server.gauges.metrics(), "text/plain; version=0.0.4")
            case _:
                self._send(404, "expected /live, /ready, /fresh, /status, /picture.jpg, /bank or /metrics\n")

    def do_POST(self) -> None:
        """Take a label bank."""
        length = self.headers.get("Content-Length", "")
        if self.path != "/bank":
            self._send(404, "expected POST /bank with a label bank\n")
        elif not (length.isascii() and length.isdigit() and 0 < int(length[:12]) <= MAX_BANK_BYTES):
            self._send(413, f"expected POST /bank with a label bank of 1 to {MAX_BANK_BYTES} bytes\n")
        elif self.headers.get("Origin") is not None:  # a page in a browser on this machine is not the operator
            self._send(403, "not from a browser\n")
        elif not self.server.token.allows(self.headers.get("Authorization")):
            self._send(
                401, f"expected the header 'Authorization: Bearer TOKEN', with the token in {self.server.token.path}\n"
            )
        elif not self.server.uploading.acquire(blocking=False):
            self._send(503, "another bank is being sent; send this one again later\n")
        else:
            try:
                answer = self._take(int(length))
            finally:
                self.server.uploading.release()  # before the answer: the client may send the next bank at once
            self._send(*answer)

    def _take(self, length: int) -> tuple[int, str]:
        self._limited.until_s = time.monotonic() + UPLOAD_S
        content = self.rfile.read(length)
        if len(content) < length:
            return 400, f"{len(content)} of {length} bytes; send the bank again\n"
        try:
            return 200, self.server.take_bank(content) + "\n"
        except OverflightError as error:
            return 409, f"{error}\n"
        except Exception as error:
            self.server.faults.note(error)
            self.server.faults.clear()
            return 500, f"{type(error).__name__}: {error}; the bank in use stays\n"

    def _answer(self, good: bool, text: str) -> None:
        self._send(200 if good else 503, text.replace("\n", " ") + "\n")

    def _picture(self) -> None:
        """Send the newest frame, small; a page in a browser does not get it, wherever its name points."""
        if self.headers.get("Origin") is not None or self.headers.get("Sec-Fetch-Site") is not None:
            self._send(403, "not from a browser\n")
        elif (kept := self.server.gauges.newest.ask()) is None:
            self._send(503, "no picture yet; ask again in a second\n")
        else:
            self._send_bytes(200, kept[1], "image/jpeg", {"X-Frame": str(kept[0])})

    def _send(self, code: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        self._send_bytes(code, text.encode(errors="replace"), kind, {})

    def _send_bytes(self, code: int, content: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: a probe every second is not worth a line."""
