"""The page's service: its unit, its files, and what a real manager makes of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from overflight.jetson import page_service, service
from overflight.jetson.commands.service import command

from .managed import files, footprint, inside, journal, needs_manager, needs_root, wait_for

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle

PAGE = page_service.PageService(("/srv/my 100% archive", "--port", "8441"), Path("/srv/my 100% archive"))


def test_the_unit_serves_the_archive_and_nothing_else(tmp_path: Path) -> None:
    """Quoted as systemd reads it, the archive writable for reviews, the token only as a credential."""
    unit = page_service.render(PAGE, Path("/bin/true"))
    assert 'ExecStart=/bin/true serve "/srv/my 100%% archive" --port 8441\n' in unit
    assert 'ReadWritePaths="/srv/my 100%% archive"\nStateDirectory=overflight\n' in unit
    assert "token" not in unit
    kept = page_service.render(page_service.PageService(token_file=tmp_path / "token"), Path("/bin/true"))
    assert f"LoadCredential=token:{tmp_path}/token\n" in kept
    assert "serve --token-file ${CREDENTIALS_DIRECTORY}/token\n" in kept


def test_an_archive_in_a_home_stays_writable() -> None:
    """Hidden or read-only homes would lose the reviews."""
    assert "ProtectHome=no\n" in page_service.render(page_service.PageService(archive=Path("/home/pilot/archive")))


def test_what_lies_in_a_temporary_folder_is_seen() -> None:
    """A /tmp of the service's own would hide the archive, the bundle or the program."""
    assert "PrivateTmp=yes\n" in page_service.render(PAGE, Path("/bin/true"))
    for page in (
        page_service.PageService(archive=Path("/tmp/archive")),
        page_service.PageService(("/var/tmp/bundle",)),
    ):
        unit = page_service.render(page, Path("/bin/true"))
        assert "ReadWritePaths=/tmp /var/tmp\n" in unit
        assert "PrivateTmp=no\n" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say."""
    unit = tmp_path / page_service.NAME
    unit.write_text(page_service.render(PAGE, Path("/bin/true")))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
def test_the_page_and_a_flight_come_and_go_in_any_order(image: Path) -> None:
    """Each removes what it made; the user stays until the last of them is gone."""
    run = CliRunner().invoke
    page = ["install", "--serve", "archive", "--port", "8441", "--root", str(image)]
    flight = ["install", "test://", "--root", str(image)]
    for first, second in (([], ["--serve"]), (["--serve"], [])):
        for made in (page, flight):
            result = run(command, made)
            assert result.exit_code == 0, result.output
        assert f"{Path.cwd()}/archive --port 8441" in (image / service.PAGE_UNIT).read_text()
        assert "deleted" in run(command, ["remove", *first, "--root", str(image)]).output
        assert "overflight:" in (image / "etc/passwd").read_text()
        assert "deleted" in run(command, ["remove", *second, "--root", str(image)]).output
        assert files(image) == set()
        assert "overflight" not in (image / "etc/passwd").read_text()
    assert "nothing to do" in run(command, ["remove", "--serve", "--root", str(image)]).output


@pytest.mark.parametrize(
    "wrong", [["--serve", "--health", "1"], ["--serve", "--name", "front"], ["test://", "--port", "8441"]]
)
def test_options_of_the_other_are_refused(wrong: list[str], tmp_path: Path) -> None:
    """Exit code 2, and nothing is written."""
    result = CliRunner().invoke(command, ["install", *wrong, "--root", str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_manager
def test_a_real_page_under_a_real_manager(
    manager: list[str], colour_bundle: Bundle, tmp_path: Path, program: Path
) -> None:
    """Checked, installed, answering, killed and back, refused where it could not serve, removed without a trace."""
    pytest.importorskip("starlette")
    before = footprint(manager)
    (tmp_path / "flights").mkdir()
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    install: list[str | Path] = [program, "service", "install", "--serve", "--user", "root", "--port", "8447"]
    install += ["--bundle", colour_bundle.directory, "--token-file", tmp_path / "token"]
    assert "no such folder" in inside(manager, *install, "--", "--flights", tmp_path / "none")
    assert "not an archive" in inside(manager, *install[:3], tmp_path / "none", *install[3:])
    assert footprint(manager) == before
    said = inside(manager, *install, "--", "--flights", tmp_path / "flights")
    assert "wrote /etc/systemd/system/overflight-serve.service" in said
    wait_for(manager, "ActiveState=active", "overflight-serve")
    assert page_answers(manager) == "200 401"
    inside(manager, "systemctl", "kill", "--signal=SIGKILL", "overflight-serve")
    wait_for(manager, "NRestarts=1", "overflight-serve")
    assert page_answers(manager) == "200 401"
    assert "token: in /run/credentials" in journal(manager, "overflight-serve")
    inside(manager, "systemctl", "stop", "overflight-serve")
    assert "Result=success" in wait_for(manager, "ActiveState=inactive", "overflight-serve")
    inside(manager, program, "service", "remove", "--serve", "--purge")
    assert footprint(manager) == before


def page_answers(manager: list[str]) -> str:
    """Return the status of the page itself and of its data without a token, once it answers."""
    ask = (
        "import time, urllib.request as u, urllib.error as e\n"
        "def status(path):\n"
        "    try: return u.urlopen('http://127.0.0.1:8447' + path).status\n"
        "    except e.HTTPError as error: return error.code\n"
        "for _ in range(300):\n"
        "    try: print(status('/'), status('/api/state')); break\n"
        "    except OSError: time.sleep(0.2)\n"
    )
    return inside(manager, sys.executable, "-c", ask).strip()
