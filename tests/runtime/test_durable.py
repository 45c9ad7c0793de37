"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from overflight.runtime.durable import sync_directory, write_atomically


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing disk leaves what was there, and no rubbish next to it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_of_a_private_file_holds_from_the_start(tmp_path: Path) -> None:
    """Nobody else can read a secret while it is written."""
    write_atomically(tmp_path / "key", b"secret", 0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_windows_has_no_directories_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.open refuses a directory there, and a station on Windows still writes its files."""
    monkeypatch.delattr("overflight.runtime.durable.os.O_DIRECTORY")
    monkeypatch.setattr("overflight.runtime.durable.os.open", lambda *_: pytest.fail("a directory was opened"))
    sync_directory(tmp_path)
