"""What is wrong with a flight that goes on: one line in the log when it begins and ends, counted, shown in health."""

from __future__ import annotations

from collections import Counter

from overflight.runtime.log import say


class Warnings:
    """The current warnings by part, such as ``telemetry``, and how often each part has warned."""

    def __init__(self) -> None:
        self.current: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def set(self, part: str, reason: str | None) -> None:
        """Take the state of a part: a reason, or None when nothing is wrong with it. Only a change is logged."""
        if reason == self.current.get(part):
            return
        if reason is None:
            self.current = {name: said for name, said in self.current.items() if name != part}
            say("recovered", part=part)
        else:
            self.current = {**self.current, part: reason}  # replaced, not changed: another thread may be reading it
            self.counts[part] += 1
            say("warning", part=part, reason=reason)
