"""Addresses from files: read as they are, refused where others can read them, never quoted in an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overflight.runtime.address_file import read_address, read_addresses
from overflight.runtime.errors import UsageError


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_addresses_are_read_a_line_each(tmp_path: Path) -> None:
    """Comments and empty lines are left out, a password's # is kept."""
    path = written(tmp_path / "links", "# the broker\nmqtt://me:a#b@h/of#rate=100\n\n  https://h/x?token=1  \n")
    assert read_addresses(path, "--link-file") == ("mqtt://me:a#b@h/of#rate=100", "https://h/x?token=1")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o606, 0o602])
def test_a_file_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    """With the command that helps, and without the address."""
    path = written(tmp_path / "source", "rtsp://me:secret@h/x", mode)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        read_address(path, "--source-file")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"# none\n", b"rtsp://me:secret@a\nrtsp://me:secret@b\n", b"\xff\xfesecret", b"secret" * 20_000]
)
def test_a_file_without_exactly_one_address_is_refused(content: bytes, tmp_path: Path) -> None:
    """One line says how many there are; nothing of the content is shown."""
    path = written(tmp_path / "source", content)
    with pytest.raises(UsageError) as caught:
        read_address(path, "--source-file")
    assert "secret" not in str(caught.value)


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    """A pipe blocks nobody."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="a named pipe"):
        read_address(tmp_path / "pipe", "--source-file")
    with pytest.raises(UsageError, match="No such file"):
        read_address(tmp_path / "none", "--source-file")
