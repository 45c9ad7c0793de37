"""Deploying over a real sshd: cut connections, a full disk, a bundle that does not fly, and the way back.

Covers: station/commands/deploy.py, station/deploy/deployments.py, station/deploy/owner.py, station/deploy/prove.py,
station/deploy/remote.py, station/deploy/running.py, station/deploy/staging.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from overflight.cli import overflight as cli
from overflight.runtime.bundle import Bundle, seal
from overflight.runtime.errors import MissingError, OverflightError, UsageError
from overflight.station.deploy.deployments import Deployments
from overflight.station.deploy.remote import Host
from overflight.station.deploy.running import Running

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow
Aircraft = Any  # of this folder's conftest
Sshd = Any
MakeBundle = Callable[..., Bundle]
HOST = "127.0.0.1"
ROOT = Path(__file__).parents[3]


def deploy(sshd: Sshd, *arguments: str | Path) -> str:
    """Run ``overflight deploy`` here; raises what it raises."""
    given = ["deploy", *map(str, arguments), HOST, *sshd.arguments, "--no-build"]
    done = CliRunner().invoke(cli, given)
    if done.exception is not None:
        raise done.exception
    return done.output


def current(aircraft: Aircraft) -> str | None:
    found = Deployments(aircraft.home).current()
    return None if found is None else found.bundle_name


def test_there_and_back(
    aircraft: Aircraft, sshd: Sshd, make_bundle: MakeBundle, make_bank: Any, spoil: Callable[[Bundle], Bundle]
) -> None:
    """A bundle, a bank alone, one that does not fly, history and rollback; with rsync, and without it."""
    quiet = ("--health", "1", "--restart", "")
    said = deploy(sshd, make_bundle("first").directory, *quiet)
    assert "is in use; onnxruntime-cpu fp32, 5 frames; nothing was restarted" in said
    assert "(again " in deploy(sshd, "--bank", make_bank("scenes"), make_bundle("again").directory, *quiet)
    assert current(aircraft) == "again"
    with pytest.raises(OverflightError, match=r"127.0.0.1: not deployed, nothing was switched"):
        deploy(sshd, spoil(make_bundle("bad")).directory, *quiet)
    assert current(aircraft) == "again"
    history = deploy(sshd, "--history")
    assert [line.split()[1] for line in history.splitlines()] == ["deployed", "deployed"]
    assert "@127.0.0.1" in history
    assert "is in use again" in deploy(sshd, "--rollback", *quiet)
    assert current(aircraft) == "first"


def test_without_rsync(
    aircraft: Aircraft, sshd: Sshd, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tar carries the same files."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "rsync" else which(name, **more))
    deploy(sshd, make_bundle("first").directory, "--health", "1", "--restart", "")
    assert current(aircraft) == "first"


def test_a_host_that_is_not_there_or_has_no_overflight(aircraft: Aircraft, sshd: Sshd, make_bundle: MakeBundle) -> None:
    """One line each; an option is never taken for a host."""
    bundle = make_bundle("first")
    with pytest.raises(MissingError, match="install overflight there"):
        Host(HOST, sshd.ssh, "/nowhere/overflight").update(list[Any], "--history")
    with pytest.raises(OverflightError, match="the connection failed"):
        Host(HOST, sshd.ssh.replace("-p ", "-p 1 -o Port="), sshd.program).update(list[Any], "--history")
    with pytest.raises(UsageError, match="expected a host"):
        Host("-oProxyCommand=true", sshd.ssh)
    with pytest.raises(UsageError, match="expected BUNDLE HOST"):
        deploy(sshd, bundle.directory, "--rollback")


def test_the_state_of_the_aircraft_is_asked_before_copying(
    aircraft: Aircraft, sshd: Sshd, make_bundle: MakeBundle
) -> None:
    """In flight nothing is even copied."""
    aircraft.update(force=True).take(str(make_bundle("first").directory), None)
    assert Running(aircraft.port).status() is not None
    with pytest.raises(OverflightError, match=r"127.0.0.1: a flight goes on"):
        deploy(sshd, make_bundle("second").directory, "--health", str(aircraft.port))
    assert list((aircraft.home / "deployments" / "incoming").iterdir()) == []


@pytest.fixture
def large(make_bundle: MakeBundle) -> Bundle:
    """Return a bundle of 60 MB that takes a while to copy."""
    made = make_bundle("large")
    (made.directory / "weights.bin").write_bytes(os.urandom(60_000_000))
    return seal(made.directory, made.manifest)


def start(sshd: Sshd, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start ``overflight deploy`` in a process of its own."""
    command = [sys.executable, "-m", "overflight", "deploy", *map(str, arguments), HOST, *sshd.arguments, "--no-build"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_a_cut_connection_while_copying_resumes(
    aircraft: Aircraft, sshd: Sshd, large: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """Nothing is switched, what was copied stays, and the second try goes on from there."""
    quiet = ("--health", "1", "--restart", "")
    deploy(sshd, make_bundle("first").directory, *quiet)
    slow = tmp_path / "rsync"
    slow.write_text(f'#!/bin/sh\nexec {shutil.which("rsync")} --bwlimit=8m "$@"\n')
    slow.chmod(0o755)
    incoming = aircraft.home / "deployments" / "incoming" / large.sha256[:16]

    def copied() -> int:
        return sum(path.stat().st_size for path in incoming.rglob("*") if path.is_file())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        process = start(sshd, large.directory, *quiet)
        wait_for(lambda: copied() > 8_000_000)
        assert sshd.cut()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "deploy again, it resumes" in said
    assert "Traceback" not in said
    wait_for(lambda: not sshd.cut())
    have = copied()
    assert 8_000_000 < have < 60_000_000
    assert current(aircraft) == "first"
    deploy(sshd, large.directory, *quiet)
    assert current(aircraft) == "large"


def test_a_cut_connection_while_switching_ends_by_itself(
    aircraft: Aircraft, sshd: Sshd, make_bundle: MakeBundle
) -> None:
    """The aircraft goes on alone: a bundle that comes up stays, one that does not is switched back."""
    options = ("--health", str(aircraft.port), "--restart", aircraft.restart, "--force", "--within", "12")
    aircraft.update(force=True).take(str(make_bundle("first").directory), None)
    deployments = Deployments(aircraft.home)
    for name, install, expected in (
        ("second", "", "second"),
        ("third", f"grep -q third {aircraft.home}/deployments/current/bundle/manifest.json && exit 0", "second"),
    ):
        aircraft.install(install)
        process = start(sshd, make_bundle(name).directory, *options)
        wait_for(lambda: deployments.trial() is not None, 60)
        assert sshd.cut()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "deploy --history" in said
        wait_for(lambda: deployments.trial() is None, 60)
        assert current(aircraft) == expected
    assert [action.action for action in deployments.history()] == ["deployed", "deployed", "failed"]
    wait_for(lambda: (status := Running(aircraft.port).status()) is not None and status.fresh)


def test_a_killed_update_is_undone_at_the_next_start(
    aircraft: Aircraft, sshd: Sshd, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """kill -9 in the trial: what the service runs before its start goes back to the deployment before."""
    aircraft.update(running=Running(1, "")).take(str(make_bundle("first").directory), None)
    aircraft.install("exit 0")
    options = ("--health", str(aircraft.port), "--restart", "sleep 600", "--force", "--within", "60")
    process = start(sshd, make_bundle("second").directory, *options)
    deployments = Deployments(aircraft.home)
    wait_for(lambda: deployments.trial() is not None and current(aircraft) == "second", 60)  # noted, then switched
    found = subprocess.run(
        ["pgrep", "-f", f"overflight update.*{aircraft.home}/"], capture_output=True, text=True, check=False
    )
    for pid in found.stdout.split():
        os.kill(int(pid), 9)
    process.communicate(timeout=60)
    assert current(aircraft) == "second"
    subprocess.run([sshd.program, "update", "--resume"], check=True, capture_output=True)
    assert current(aircraft) == "first"
    assert deployments.history()[-1].reason == "the update was interrupted before the flight was fresh"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 300 MB over the aircraft's home."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "test", home], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield home
    subprocess.run(["umount", "-l", home], check=False)


def test_a_full_disk(
    small_disk: Path, aircraft: Aircraft, sshd: Sshd, large: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """Refused with numbers before copying; a disk that fills up meanwhile is freed again, and nothing is switched."""
    quiet = ("--health", "1", "--restart", "")
    deploy(sshd, make_bundle("first").directory, *quiet)
    with pytest.raises(OverflightError, match=r"127.0.0.1: .* 60 MB are needed and 268 MB kept free"):
        deploy(sshd, large.directory, *quiet)
    shutil.rmtree(small_disk / "deployments" / "incoming")
    program = tmp_path / "overflight"
    program.write_text(program.read_text().replace("-m overflight", f"{tmp_path}/roomy.py"))
    (tmp_path / "roomy.py").write_text(
        "import overflight.station.deploy.staging as staging\nstaging.RESERVE_BYTES = 0\n"
        "from overflight.cli import main\nmain()\n"
    )
    filler = small_disk / "recording"
    slow = tmp_path / "rsync"
    slow.write_text(f'#!/bin/sh\nexec {shutil.which("rsync")} --bwlimit=20m "$@"\n')
    slow.chmod(0o755)

    def fill() -> None:
        wait_for(lambda: any((small_disk / "deployments" / "incoming").rglob("*eights.bin*")))
        with filler.open("wb") as file, pytest.raises(OSError, match=r"No space left"):
            while True:
                file.write(b"x" * 1_000_000)
                file.flush()

    filling = threading.Thread(target=fill)
    filling.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(OverflightError, match=r"No space left on device.*deleted again"):
            deploy(sshd, large.directory, *quiet)
    filling.join()
    assert current(aircraft) == "first"
    assert list((small_disk / "deployments" / "incoming").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_root_acts_as_the_owner(aircraft: Aircraft, sshd: Sshd, make_bundle: MakeBundle, tmp_path: Path) -> None:
    """Deployed by root into a home of the service's user, everything belongs to that user."""
    nobody = 65534
    for path in (*Path(os.__file__).resolve().parents, *Path(sys.executable).resolve().parents, *ROOT.parents):
        if path.stat().st_mode & 0o005 != 0o005:
            pytest.skip(f"other users cannot read {path}, which Python needs")
    keys = Path(os.environ["OVERFLIGHT_TRUSTED_KEYS"]).parent
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent, keys):
        path.chmod(0o755)  # pytest's folders are closed to other users
    os.chown(aircraft.home, nobody, nobody)
    deploy(sshd, make_bundle("first").directory, "--health", "1", "--restart", "")
    owners = {path.lstat().st_uid for path in (aircraft.home / "deployments").rglob("*")}
    assert owners == {nobody}
    history = msgspec.json.decode(deploy(sshd, "--history", "--json"))
    assert len(history) == 1
