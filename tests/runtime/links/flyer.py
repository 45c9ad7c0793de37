"""A process that flies nothing and publishes events, to be killed: OUTBOX NAME EVENTS PERIOD_S URI..."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from overflight.runtime.event import Event
from overflight.runtime.links import Links
from overflight.runtime.pose.footprint import Place


def main(outbox: str, name: str, events: str, period_s: str, *uris: str) -> None:
    """Publish events that begin and end, one step each period, and print each key once it is safe."""
    links = Links.open(uris, Path(outbox))
    for number in range(int(events)):
        for sequence, kind in enumerate(("begin", "end")):
            now_ns = time.time_ns()
            place = Place(47.0 + number * 1e-3, 8.0, 5.0)
            event = Event(
                f"{name}-{number}", "begin" if kind == "begin" else "end", f"label {name}", now_ns, now_ns, number, 0.9,
                sequence, name, place=place,
            )  # fmt: skip
            links.publish(event, b"\xff\xd8" + bytes(500))
            print(event.key, flush=True)
            next_s = time.monotonic() + float(period_s)
            while time.monotonic() < next_s:
                links.tick()
                time.sleep(min(0.05, float(period_s)))
    for line in sys.stdin:
        if line.strip() == "land":
            break
        links.tick()
    for status in links.close(0.5):
        print(status, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
