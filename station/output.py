"""The files that a command is asked to write, checked before the work: a wrong name must not cost its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path


def check_outputs(paths: Iterable[Path | None], endings: Collection[str] = ()) -> None:
    """Raise UsageError for an ending that is none of ``endings`` (with the dot), a folder, or a missing folder.

    Without ``endings`` any will do. None is an option that was not given.
    """
    for path in paths:
        if path is None:
            continue
        if endings and path.suffix.lower() not in endings:
            raise UsageError(f"{path}: ends in {path.suffix!r}; expected one of {', '.join(endings)}")
        if path.is_dir():
            raise UsageError(f"{path}: a folder; expected the name of a file to write")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: its folder does not exist; create it, or check the path")
