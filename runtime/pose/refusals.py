"""What a telemetry reader could not use: the first lines in full, the others as a count."""

from __future__ import annotations

from overflight.runtime.errors import SourceError

MOST = 100_000  # a file with more of them is not worth the time
KEPT = 100
LONGEST = 300  # characters of a line


class Refusals:
    """Lines that name what was refused and why; bounded, since a damaged file may have millions."""

    def __init__(self, most: int | None = MOST) -> None:
        self.count = 0
        self._most = most
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Record one refusal. Raises SourceError where there are too many for one file."""
        if self.count == self._most:
            raise SourceError(f"{line}; {self.count} more were refused before; copy the file again")
        self.count += 1
        if self.count <= KEPT:
            self._lines.append(line if len(line) <= LONGEST else line[: LONGEST - 1] + "…")

    @property
    def lines(self) -> tuple[str, ...]:
        """The refusals, one line each; the last line counts those that are not kept."""
        more = self.count - len(self._lines)
        return (*self._lines, f"{more} more were refused") if more else tuple(self._lines)

    def __len__(self) -> int:
        return self.count
