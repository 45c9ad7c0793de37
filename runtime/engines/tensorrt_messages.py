"""TensorRT's own messages, collected: its calls return None or False, and the reason is only in its log."""

from __future__ import annotations

from collections import deque
from typing import Any

_KEPT = 16


def collector(trt: Any, *, keep: tuple[str, ...] = ()) -> Any:
    """Return an ILogger that keeps errors and warnings, and every message that contains a word of ``keep``.

    Its ``explain()`` returns the newest errors in one line, or the newest warnings where there was no error. Nothing
    is printed, and nothing is raised: an exception in a call from the library would end the process.
    """

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # a trampoline class: without this the process crashes later
            self.errors: deque[str] = deque(maxlen=_KEPT)
            self.warnings: deque[str] = deque(maxlen=_KEPT)
            self.kept: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(msg)
            if keep and any(word in msg for word in keep):
                self.kept.append(msg)

        def explain(self, otherwise: str = "it gave no reason") -> str:
            said = list(self.errors)[-2:] or list(self.warnings)[-1:]
            return " ".join("; ".join(said).split())[:400] or otherwise

    return Collector()
