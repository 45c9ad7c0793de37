"""The courier: a worker that sends a link's messages from the outbox, by priority, until they arrive."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from overflight.runtime.links.bucket import Bucket
from overflight.runtime.links.message import Link, LinkDown, Message, Refused
from overflight.runtime.links.outbox import Unreadable
from overflight.runtime.links.outbox_repair import is_damage
from overflight.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.links.outbox import Outbox

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 10.0
IDLE_S = 0.5
ATTEMPTS = 3  # a message on which the link fails unexpectedly so often is given up


class Courier:
    """Sends for one link. ``trouble`` is why it cannot, ``shed`` counts what it gave up, by reason.

    ``settled`` counts the messages that left the outbox, delivered or not. ``on_damage`` is called when the outbox
    turns out to be damaged.
    """

    def __init__(
        self,
        name: str,
        link: Link,
        outbox: Outbox,
        rate_bps: float | None,
        on_damage: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.trouble: str | None = "not connected yet"
        self.sent = 0
        self.sent_bytes = 0
        self.settled = 0
        self.shed: Counter[str] = Counter()
        self._link = link
        self._outbox = outbox
        self._bucket = Bucket(rate_bps, time.monotonic())
        self._on_damage = on_damage
        self._retry_s = FIRST_RETRY_S
        self._failed: Counter[int] = Counter()
        self._stopping = False
        self._until_s = float("inf")
        self._connected = False
        self._ongoing: dict[str, tuple[Message, float]] = {}
        self._handed: deque[tuple[float, Message]] = deque()
        self.worker = Worker(f"link {name}", self._work, self._part)
        self.worker.start()

    def wake(self) -> None:
        """Say that there is something to send."""
        self.worker.wake()

    def stop(self, within_s: float) -> None:
        """Send what waits for at most ``within_s``, then end; what is left stays in the outbox."""
        self._until_s = time.monotonic() + within_s
        self._stopping = True
        self.worker.wake()

    def join(self, within_s: float) -> None:
        """Wait for the end."""
        self.worker.join(within_s)

    def release(self) -> None:
        """Close the outbox, unless the link still hangs."""
        if self.worker.close(1.0):
            self._outbox.close()

    @property
    def waiting(self) -> int:
        """Count what waits in the outbox."""
        try:
            return self._outbox.waiting(self.name)
        except (sqlite3.Error, UnicodeDecodeError):
            return -1

    def _work(self) -> float | None:
        """Do the next thing, or wait after a failure; return how long there is nothing to do, None at the end."""
        if self._over():
            return None
        try:
            pause_s = self._step()
        except (LinkDown, sqlite3.Error, UnicodeDecodeError) as error:
            self.trouble = str(error)
            self._disconnect()
            if is_damage(error):
                self._on_damage()
            self._pause(self._retry_s * random.uniform(0.75, 1.25))  # noqa: S311 - spreads retries, guards nothing
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)
            return 0.0
        except Exception:
            self._disconnect()
            raise
        self._retry_s = FIRST_RETRY_S
        return pause_s

    def _over(self) -> bool:
        if not self._stopping:
            return False
        return time.monotonic() >= self._until_s or (self._connected and self.waiting == 0)

    def _pause(self, pause_s: float) -> None:
        """Wait before the next try; new messages do not shorten it, the end of the flight does."""
        end_s = time.monotonic() + pause_s
        while time.monotonic() < min(end_s, self._until_s):
            time.sleep(0.05)

    def _step(self) -> float:
        """Do the next thing; return how long there is nothing to do."""
        if not self._connected:
            self._outbox.take_back(self.name)  # handed over shortly before the link broke or an earlier process died
            self._link.open()
            self._connected, self.trouble = True, None
        self._trust(self._link.grace_s)
        try:
            message = self._outbox.next(self.name)
        except Unreadable as error:
            self.trouble = str(error)
            self._outbox.forget(self.name, error.number)
            self.shed[f"{error.kind}-unreadable"] += 1
            self.settled += 1
            return 0.0
        if message is None:
            return self._refresh()
        try:
            return self._carry(message)
        except (LinkDown, sqlite3.Error):
            raise
        except Exception:
            self._failed[message.number] += 1
            if self._failed[message.number] == ATTEMPTS:
                self._give_up(message, "failed")
            raise

    def _carry(self, message: Message) -> float:
        """Send a message, or give it up; return how long its turn is still away."""
        payload = self._link.encode(message, brief=self._bucket.rate_bps is not None)
        if payload is None:
            if message.kind == "event":  # only markers on a map refuse one
                self._give_up(message, "without-position")
            else:
                self._settle(message)
            return 0.0
        size = len(payload) + self._link.overhead_bytes
        if reason := self._surplus(message, size):
            self._give_up(message, reason)
            return 0.0
        wait_s = self._bucket.wait_s(size, time.monotonic())
        if wait_s > 0:
            return wait_s
        self._bucket.spend(size, time.monotonic())
        try:
            self._link.send(message, payload)
        except Refused as answer:
            self.trouble = str(answer)
            self._give_up(message, "refused")
            return 0.0
        if self._link.grace_s:
            self._outbox.hand_over(self.name, message)
            self._handed.append((time.monotonic(), message))
        else:
            self._settle(message)
        self.sent += 1
        self.sent_bytes += size
        self._remember(message)
        return 0.0

    def _surplus(self, message: Message, size: int) -> str | None:
        """Say why a thin link should not carry a message at all."""
        if message.kind == "thumbnail" and self._bucket.too_large(size):
            return "too-large"
        thin = self._bucket.rate_bps is not None
        if thin and message.event.type == "change" and self._outbox.overtaken(self.name, message):
            return "overtaken"
        return None

    def _give_up(self, message: Message, reason: str) -> None:
        self._settle(message)
        self.shed[f"{message.kind}-{reason}"] += 1

    def _settle(self, message: Message) -> None:
        self._outbox.done(self.name, message)
        self._failed.pop(message.number, None)
        self.settled += 1

    def _remember(self, message: Message) -> None:
        if message.kind != "event" or self._link.refresh_s is None:
            return
        if message.event.type == "end":
            self._ongoing.pop(message.event.id, None)
        else:
            self._ongoing[message.event.id] = message, time.monotonic() + self._link.refresh_s

    def _refresh(self) -> float:
        """Check the idle link; send an ongoing event again, where receivers forget."""
        self._link.check()
        refresh_s = self._link.refresh_s
        if refresh_s is None:
            return IDLE_S
        for name, (message, due_s) in self._ongoing.items():
            if time.monotonic() >= due_s:
                payload = self._link.encode(message, brief=self._bucket.rate_bps is not None)
                size = len(payload or b"") + self._link.overhead_bytes
                if payload is not None and self._bucket.wait_s(size, time.monotonic()) == 0:
                    self._bucket.spend(size, time.monotonic())
                    self._link.send(message, payload)
                    self._ongoing[name] = message, time.monotonic() + refresh_s
                return IDLE_S
        return IDLE_S

    def _trust(self, older_than_s: float) -> None:
        """Remove what was handed over long enough ago on a connection that is still open."""
        until_s = time.monotonic() - older_than_s
        while self._handed and self._handed[0][0] <= until_s:
            self._settle(self._handed[0][1])
            self._handed.popleft()

    def _part(self) -> None:
        """End: where the connection is still open, what was handed over counts as delivered."""
        try:
            if self._connected:
                self._link.check()
                self._trust(0.0)
        except (LinkDown, sqlite3.Error) as error:
            self.trouble = str(error)
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connected:
            self._connected = False
            self._handed.clear()
            self._link.close()
