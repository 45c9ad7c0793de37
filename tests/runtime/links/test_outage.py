"""All links at once through an outage and a kill -9: nothing lost, and what comes twice has the same key."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

FLYER = Path(__file__).with_name("flyer.py")
ROOT = Path(__file__).parents[3]


class Flight:
    """A flyer process; ``published`` are the keys that it said were safe."""

    def __init__(self, outbox: Path, name: str, events: int, period_s: float, uris: list[str]) -> None:
        self.published: list[str] = []
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            [sys.executable, str(FLYER), str(outbox), name, str(events), str(period_s), *uris],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._beater = threading.Thread(target=self._beat, daemon=True)
        self._beater.start()

    def kill(self) -> None:
        """End it as a power switch would end the process: no signal handler, no goodbye."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def land(self) -> str:
        """End it in order; return what it said of its links."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.write("land\n")
        self.process.stdin.flush()
        said = self.process.stderr.read()
        self.close()
        return said

    def close(self) -> None:
        """Wait for its end and let the pipes go."""
        self.process.wait()
        self._reader.join()
        self._beater.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.published.append(line.strip())

    def _beat(self) -> None:
        while self.process.poll() is None:
            try:
                assert self.process.stdin is not None
                self.process.stdin.write("beat\n")
                self.process.stdin.flush()
            except (BrokenPipeError, ValueError):
                return
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("outage_s", "period_s"), [(3.0, 0.3), pytest.param(60.0, 2.0, marks=pytest.mark.slow)], ids=["3s", "60s"]
)
def test_nothing_is_lost(
    broker: Any,
    web: Any,
    tcp_tak: Any,
    autopilot: Any,
    wait: Callable[..., bool],
    tmp_path: Path,
    outage_s: float,
    period_s: float,
) -> None:
    """Every station gone, the runtime killed meanwhile: every key arrives, repeated at most where a link was cut."""
    stations = [broker, web, tcp_tak, autopilot]
    uris = [station.uri for station in stations]
    outbox = tmp_path / "outbox.sqlite"
    enough = round((2 + outage_s) / period_s)
    first = Flight(outbox, "first", enough, period_s, uris)
    heard = wait(lambda: all(len(set(station.keys)) >= 2 for station in stations), 30)
    assert heard, (first.published, first.land(), [station.keys for station in stations])
    for station in stations:
        station.stop()
    began_s = time.monotonic()
    wait(lambda: time.monotonic() - began_s > outage_s / 2, outage_s)
    first.kill()
    second = Flight(outbox, "second", max(2, round(outage_s / 2 / period_s / 2)), period_s, uris)
    wait(lambda: time.monotonic() - began_s > outage_s, outage_s)
    for station in stations:
        station.start()
    back_s = time.monotonic()
    assert wait(lambda: len(second.published) >= 4 and not second.published[-1].endswith("/0"), 30)

    def complete() -> bool:
        expected = set(first.published) | set(second.published)
        texts = {text_of(key) for key in expected}
        return all(
            texts <= set(map(shape, station.keys)) if station is autopilot else expected <= set(station.keys)
            for station in stations
        )

    arrived = wait(complete, 60 + outage_s)
    took_s = time.monotonic() - back_s
    said = second.land()
    published = first.published + second.published
    for station in stations:
        name = type(station).__name__
        keys = [shape(key) for key in station.keys] if station is autopilot else station.keys
        wanted = {text_of(key) for key in published} if station is autopilot else set(published)
        missing = wanted - set(keys)
        again = {key: n for key, n in Counter(keys).items() if n > 1}
        print(f"{name}: {len(wanted)} published, {len(missing)} lost, {len(again)} sent twice {sorted(again)}")
        assert not missing, f"{name} lost {missing}; {said}"
        if station is tcp_tak:
            continue  # a marker sent again moves the same uid
        assert len(again) <= 2, f"{name}: only what was in flight when the link or the process died may come twice"
    print(f"outage {outage_s:g} s, all delivered {took_s:.1f} s after it ended")
    assert arrived
    assert broker.topic("of/available")[0] == b"online"
    assert broker.topic("of/available")[-1] == b"stopped"


def text_of(key: str) -> str:
    """What the autopilot's text must say of a message: the flight's label, the number and whether it ended."""
    flight, number, sequence = re.fullmatch(r"(\w+)-(\d+)/(\d)", key).groups()  # type: ignore[union-attr]
    return f"#{number} {'end ' if sequence == '1' else ''}label {flight}"


def shape(text: str) -> str:
    """Cut a status text after its label."""
    return re.sub(r" 90%.*", "", text)
