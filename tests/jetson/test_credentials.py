"""Address files of a service: named next to the configuration, loaded by systemd, and copied for the check only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from overflight.jetson import service
from overflight.jetson.commands.service import command
from overflight.jetson.credentials import MAX_BYTES, copy_credential, drop_in, separate

CONFIG = """\
source-file = "/etc/camera 100%"  # the left one
link-file = ["/a/one", "/a/two"]
fps = 5
"""


def test_the_files_are_named_next_to_the_configuration() -> None:
    """Comments and other keys stay; systemd's own signs in a path are hidden from it."""
    config, paths = separate(CONFIG)
    assert config.splitlines() == [
        'source-file = "source-file"  # the left one',
        'link-file = ["link-file-1", "link-file-2"]',
        "fps = 5",
    ]
    assert drop_in(paths).splitlines()[1:] == [
        "[Service]",
        "LoadCredential=source-file:/etc/camera 100%%",
        "LoadCredential=link-file-1:/a/one",
        "LoadCredential=link-file-2:/a/two",
    ]


@pytest.mark.parametrize(
    "line", ['source-file = "relative"', "source-file = '/single'", "source-file = 5", 'link-file = ["/a:b"]']
)
def test_a_path_that_systemd_cannot_read_is_refused(line: str) -> None:
    """One line says what is expected."""
    with pytest.raises(ValueError, match="expected"):
        separate(line)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root and useradd")
def test_install_writes_a_drop_in_and_removes_it(tmp_path: Path) -> None:
    """It names the file and does not hold the password; a configuration without files takes it away again."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    one = service.Service("front")
    service.install(one, 'source-file = "/etc/secret"\n', tmp_path, Path("/bin/true"))
    placed = tmp_path / "etc/systemd/system/overflight@front.service.d/credentials.conf"
    assert "LoadCredential=source-file:/etc/secret" in placed.read_text()
    assert (tmp_path / one.config).read_text() == 'source-file = "source-file"\n'
    service.install(one, 'source = "test://"\n', tmp_path, Path("/bin/true"))
    assert not placed.exists()
    service.install(one, 'source-file = "/etc/secret"\n', tmp_path, Path("/bin/true"))
    service.remove(one, tmp_path)
    assert not placed.parent.exists()


@pytest.mark.parametrize(
    ("mode", "content", "words"),
    [(0o600, "test://?frames=3&fps=0&size=64x48", None), (0o644, "x", "chmod 600"), (0o600, "carrier://x", "carrier")],
)
def test_the_check_reads_the_file_as_the_service_will(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: Path, mode: int, content: str, words: str | None
) -> None:
    """As its user, who cannot read the file itself."""
    monkeypatch.setattr(service, "program_path", lambda: program)
    (tmp_path / "address").write_text(content)
    (tmp_path / "address").chmod(mode)
    (tmp_path / "flight.toml").write_text('source-file = "address"\n')
    arguments = ["install", "--config", str(tmp_path / "flight.toml"), "--user", "root", "--dry-run"]
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, words is None or words in result.output) == (0 if words is None else 2, True), (
        result.output
    )


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """A pipe blocks nobody, and what is too large is copied no further."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ValueError, match="not a file"):
        copy_credential(tmp_path / "pipe", tmp_path / "copy")
    (tmp_path / "large").touch(0o600)
    os.truncate(tmp_path / "large", 1 << 30)
    copy_credential(tmp_path / "large", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == MAX_BYTES + 1
