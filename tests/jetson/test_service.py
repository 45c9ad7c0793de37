"""The service: its unit, its files, and what a real manager makes of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from overflight.jetson import service
from overflight.jetson.commands.service import command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle

    Grow = Callable[[str], Path]

HERE = Path(__file__).parent
SOURCE = 'rtsp://pilot:pa$$ "w%d\\@192.168.144.25:8554/main stream'


def setting(unit: str, name: str) -> str:
    """Return the one value of a setting."""
    (line,) = [line for line in unit.splitlines() if line.startswith(f"{name}=")]
    return line.partition("=")[2]


def test_the_unit_asks_for_what_a_flight_needs(tree: Grow) -> None:
    """Notify, watchdog, restarts without end, memory limits, a read-only root and one folder to write."""
    unit = service.render(
        service.Service("csi://0"), tree("orin-nano-jetpack-6.2"), Path("/opt/overflight/bin/overflight")
    )
    assert setting(unit, "Type") == "notify"
    assert setting(unit, "WatchdogSec") == "30"
    assert (setting(unit, "Restart"), setting(unit, "StartLimitIntervalSec")) == ("always", "0")
    assert (setting(unit, "MemoryHigh"), setting(unit, "MemoryMax")) == ("60%", "75%")
    assert (setting(unit, "ProtectSystem"), setting(unit, "StateDirectory")) == ("strict", "overflight")
    assert setting(unit, "SupplementaryGroups") == "video render dialout"
    assert setting(unit, "ExecStart") == "/opt/overflight/bin/overflight run --health 9180"
    assert "$environment" not in unit


def test_only_groups_that_exist(tmp_path: Path) -> None:
    """A unit that names a missing group does not start."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("video:x:44:\n")
    assert setting(service.render(service.Service("test://"), tmp_path), "SupplementaryGroups") == "video"


def test_another_home_is_made_writable() -> None:
    """A home of one's own is no state directory of systemd's."""
    unit = service.render(service.Service("test://", home=Path("/mnt/ssd/my flights")))
    assert setting(unit, "ReadWritePaths") == '"/mnt/ssd/my flights"'
    assert "StateDirectory=" not in unit


def test_a_password_stays_out_of_the_unit(tmp_path: Path) -> None:
    """Units can be read by everyone; the source lies in a file of root's own."""
    service.install(service.Service(SOURCE), tmp_path, Path("/bin/true"))
    unit, environment = tmp_path / service.UNIT, tmp_path / service.ENVIRONMENT
    assert "pilot" not in unit.read_text()
    assert "pilot" in environment.read_text()
    assert environment.stat().st_mode & 0o777 == 0o600


def test_install_and_remove_can_be_repeated(tmp_path: Path) -> None:
    """Twice is as good as once, in both directions; nothing is left."""
    for source in ("test://", "csi://0"):
        result = CliRunner().invoke(command, ["install", source, "--root", str(tmp_path)])
        assert result.exit_code == 0, result.output
    assert (tmp_path / service.ENVIRONMENT).read_text() == 'OVERFLIGHT_SOURCE="csi://0"\n'
    for said in ("deleted", "nothing to do"):
        result = CliRunner().invoke(command, ["remove", "--root", str(tmp_path)])
        assert (result.exit_code, said in result.output) == (0, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_root_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 and the word sudo."""

    def refuse(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied", "/etc/systemd/system")

    monkeypatch.setattr(service, "install", refuse)
    result = CliRunner().invoke(command, ["install", "test://", "--root", str(tmp_path)])
    assert (result.exit_code, "sudo" in result.output) == (3, True)


def test_a_deployed_bundle_is_used_by_its_link() -> None:
    """The link that an update moves stays in the unit, and an interrupted update is undone before each start."""
    unit = service.render(
        service.Service("csi://0", deployed=True, options=("--pose", "udpin:0.0.0.0:14550")), program=Path("/x")
    )
    current = "/var/lib/overflight/deployments/current"
    assert setting(unit, "ExecStart") == (
        f"/x run --bundle {current}/bundle --labels {current}/bank.safetensors --watch-bank "
        "--health 9180 --pose udpin:0.0.0.0:14550"
    )
    assert setting(unit, "ExecStartPre") == "-/x update --resume --home /var/lib/overflight"
    assert "ExecStartPre" not in service.render(service.Service("csi://0"), program=Path("/x"))


def test_labels_keep_their_link(tmp_path: Path) -> None:
    """A link to a bank is not resolved: whoever moves it changes what the next start uses."""
    (tmp_path / "bank").symlink_to("elsewhere")
    assert f"--labels {tmp_path}/bank" in service.render(service.Service("csi://0", tmp_path / "bank"))


def test_home_directories_are_hidden_unless_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels, bundle or program in a home make it readable, and never writable."""
    monkeypatch.setattr(service, "_own_files", list)
    for what, program, expected in (
        (service.Service("csi://0"), Path("/opt/overflight"), "yes"),
        (service.Service("csi://0", Path("/home/pilot/bank")), Path("/opt/overflight"), "read-only"),
        (service.Service("csi://0"), Path("/home/pilot/overflight"), "read-only"),
    ):
        assert setting(service.render(what, program=program), "ProtectHome") == expected
    monkeypatch.setattr(service, "_own_files", lambda: ["/root/.pyenv/bin/python3.12"])
    assert setting(service.render(service.Service("csi://0"), program=Path("/opt/o")), "ProtectHome") == "read-only"


def test_devices_are_an_allow_list() -> None:
    """Cameras, GPU and serial ports by their kernel names, others on request, and nothing else."""
    unit = service.render(service.Service("csi://0", devices=("/dev/i2c-1",)))
    assert setting(unit, "DevicePolicy") == "closed"
    allowed = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("DeviceAllow=")]
    assert {"char-video4linux rw", "char-drm rw", "char-nv* rw", "/dev/nvmap rw", "/dev/i2c-1 rw"} <= set(allowed)
    assert not [one for one in allowed if one.startswith(("char-mem", "block-", "/dev/sd", "/dev/mem"))]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--deployed", "--bundle", "b"],
        ["--device", "video0"],
        ["--device", "/dev/a b"],
        ["--", "--link", "mqtt://pilot:secret@host/prefix"],
        ["--", "--link", "https://host/?token=secret"],
    ],
)
def test_mistakes_are_usage_errors(wrong: list[str], tmp_path: Path) -> None:
    """Exit code 2, and no secret is repeated."""
    result = CliRunner().invoke(command, ["install", "csi://0", "--root", str(tmp_path), *wrong])
    assert (result.exit_code, "secret" in result.output) == (2, False)
    assert list(tmp_path.iterdir()) == []


def test_the_home_of_an_installed_service_is_found(tmp_path: Path) -> None:
    """An update asks the unit where its service keeps its state."""
    assert service.installed_home(tmp_path) is None
    service.install(service.Service("test://", home=Path("/mnt/my 100% ssd")), tmp_path, Path("/bin/true"))
    assert service.installed_home(tmp_path) == Path("/mnt/my 100% ssd")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("labels", [None, Path("/home/pilot/bank.safetensors")])
def test_the_exposure_is_low(tmp_path: Path, labels: Path | None) -> None:
    """systemd-analyze security gives at most 3.0; what is left is explained in jetson/README.md."""
    unit = tmp_path / "overflight.service"
    unit.write_text(service.render(service.Service("csi://0", labels), program=Path("/bin/true")))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze reads no files")
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say, also to words that need quotes."""
    unit = tmp_path / "overflight.service"
    what = service.Service(SOURCE, labels=tmp_path / 'my "100%" $bank; x.safetensors', home=Path("/mnt/a b"))
    unit.write_text(service.render(what, program=Path("/bin/true")))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _can_boot() -> bool:
    tools = ("unshare", "nsenter", "systemctl", "journalctl", "pgrep")
    return os.geteuid() == 0 and Path("/lib/systemd/systemd").exists() and all(shutil.which(tool) for tool in tools)


Boot = Callable[[service.Service, Path], list[str]]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Boot a real systemd over a throw-away file system with a service; returns the command that reaches inside."""
    booted: list[int] = []

    def start(what: service.Service, program: Path) -> list[str]:
        service.install(what, tmp_path, program)
        (tmp_path / "scratch").mkdir()
        command = [HERE / "manager.sh", tmp_path / service.UNIT, tmp_path / service.ENVIRONMENT, tmp_path / "scratch"]
        started = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if not started.stdout.strip():
            pytest.skip(f"no manager can be booted here: {started.stderr.strip()[-200:]}")
        booted.append(int(started.stdout))
        return ["nsenter", "-t", started.stdout.strip(), "-a", "-r"]

    yield start
    for process in booted:
        os.kill(process, signal.SIGKILL)


def inside(manager: list[str], *command: str) -> str:
    """Run a command inside the manager's namespaces and return what it printed."""
    return subprocess.run([*manager, *command], capture_output=True, text=True, check=False, timeout=20).stdout


def wait_for(manager: list[str], wanted: str, timeout_s: float = 20) -> str:
    """Wait until the service's properties hold a line."""
    end = time.monotonic() + timeout_s
    while wanted not in (said := inside(manager, "systemctl", "show", "overflight")).splitlines():
        assert time.monotonic() < end, f"{wanted} did not come: {said[-2000:]}"
        time.sleep(0.2)
    return said


def journal(manager: list[str]) -> str:
    """Return what the service has said and what its manager said of it."""
    return inside(manager, "journalctl", "-u", "overflight", "-o", "cat", "--no-pager")


@pytest.mark.slow
@pytest.mark.skipif(not _can_boot(), reason="needs root, namespaces and systemd")
def test_a_real_manager_restarts_it_when_frames_stop(boot: Boot, tmp_path: Path) -> None:
    """Started, hardened, aborted by the watchdog two seconds after the last frame, restarted, stopped cleanly."""
    manager = boot(service.Service(SOURCE, labels=tmp_path / "my bank", watchdog_s=2), HERE / "standin.py")
    wait_for(manager, "ActiveState=active")
    said = journal(manager)
    assert "arguments ['run', '--labels'" in said
    assert f" source {SOURCE!r} " in said
    assert "etc-writable False here /var/lib/overflight" in said
    assert " user 0\n" not in said
    time.sleep(3)
    assert "NRestarts=0" in inside(manager, "systemctl", "show", "overflight")
    inside(manager, "touch", "/var/lib/overflight/frames-stopped")
    wait_for(manager, "NRestarts=1")
    inside(manager, "rm", "/var/lib/overflight/frames-stopped")
    wait_for(manager, "ActiveState=active")
    assert "Watchdog timeout (limit 2s)" in journal(manager)
    inside(manager, "systemctl", "stop", "overflight")
    wait_for(manager, "Result=success")


@pytest.mark.slow
@pytest.mark.skipif(not _can_boot(), reason="needs root, namespaces and systemd")
def test_a_real_flight_under_a_real_manager(
    boot: Boot, colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """``overflight run`` flies the test source from boot; frozen, it is killed and flies again; stopped, it ends."""
    program = tmp_path / "overflight"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={HERE.parents[1] / "src"} exec {sys.executable} -m overflight "$@"\n')
    program.chmod(0o755)
    colour_bank.save(tmp_path / "bank.safetensors")
    what = service.Service("test://?fps=10&size=320x240", tmp_path / "bank.safetensors", colour_bundle.directory,
                           user="root", watchdog_s=6)  # fmt: skip
    manager = boot(what, program)
    wait_for(manager, "ActiveState=active", timeout_s=90)
    inside(manager, "systemctl", "kill", "--signal=SIGSTOP", "overflight")
    wait_for(manager, "NRestarts=1", timeout_s=60)
    assert "Watchdog timeout (limit 6s)" in journal(manager)
    wait_for(manager, "ActiveState=active", timeout_s=90)
    began = time.monotonic()
    inside(manager, "systemctl", "stop", "overflight")
    stopped_s = time.monotonic() - began
    assert "Result=success" in wait_for(manager, "ActiveState=inactive")
    assert stopped_s < 10
    flights = inside(manager, "sh", "-c", "cat /var/lib/overflight/flights/*/flight.json")
    assert flights.count('"schema"') == 2
    assert flights.count('"stopped"') == 1
