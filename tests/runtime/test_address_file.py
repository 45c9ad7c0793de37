"""Addresses from files: read as they are, refused where others can read them, never quoted in an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overflight.runtime import LabelBank
from overflight.runtime.address_file import read_address, read_addresses
from overflight.runtime.bundle import Bundle
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


def test_a_password_is_on_no_command_line_and_in_no_file(
    tmp_path: Path, colour_bundle: Bundle, colour_bank: LabelBank
) -> None:
    """A flight with both files: the record, the log and the outbox show no part of the credentials."""
    colour_bank.save(tmp_path / "bank.safetensors")
    source = written(tmp_path / "source", "test://?frames=3&fps=0&size=64x48\n")
    links = written(tmp_path / "links", "http://operator:Zq-pass/word@127.0.0.1:9/x?token=Zq-token\n")
    command = [sys.executable, "-m", "overflight", "run", "--source-file", str(source), "--link-file", str(links)]
    command += ["--bundle", str(colour_bundle.directory), "--labels", str(tmp_path / "bank.safetensors")]
    command += ["--out", str(tmp_path / "flight"), "--outbox", str(tmp_path / "outbox.sqlite")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Zq-" not in done.stdout + done.stderr + " ".join(command)
    assert "operator" not in done.stdout + done.stderr
    for path in [*(tmp_path / "flight").rglob("*"), *tmp_path.glob("outbox*")]:
        assert not path.is_file() or b"Zq-" not in path.read_bytes(), path
