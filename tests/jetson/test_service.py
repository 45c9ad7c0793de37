"""The service: its unit, its files, and what a real manager makes of them."""

from __future__ import annotations

import json
import re
import shutil
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

from .managed import files, footprint, inside, journal, needs_manager, needs_root, wait_for

if TYPE_CHECKING:
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
    unit = service.render(service.Service(), tree("orin-nano-jetpack-6.2"), Path("/opt/overflight/bin/overflight"))
    assert setting(unit, "Type") == "notify"
    assert setting(unit, "WatchdogSec") == "30"
    assert (setting(unit, "Restart"), setting(unit, "StartLimitIntervalSec")) == ("always", "0")
    assert (setting(unit, "MemoryHigh"), setting(unit, "MemoryMax")) == ("60%", "75%")
    assert (setting(unit, "ProtectSystem"), setting(unit, "StateDirectory")) == ("strict", "overflight")
    assert setting(unit, "SupplementaryGroups") == "video render dialout"
    command = "/opt/overflight/bin/overflight run --config ${CREDENTIALS_DIRECTORY}/flight.toml"
    assert setting(unit, "ExecStart") == command
    assert setting(unit, "LoadCredential") == "flight.toml:/etc/overflight/flight.toml"


def test_instances_share_a_unit_and_nothing_else(tree: Grow) -> None:
    """Each camera has its own configuration, folder and outbox."""
    unit = service.render(service.Service("front"), tree("orin-nano-jetpack-6.2"))
    assert setting(unit, "LoadCredential") == "flight.toml:/etc/overflight/%i.toml"
    assert setting(unit, "WorkingDirectory") == "/var/lib/overflight/%i"
    assert setting(unit, "StateDirectory") == "overflight overflight/%i"
    assert '"OVERFLIGHT_OUTBOX=/var/lib/overflight/%i/outbox.sqlite"' in unit


@pytest.mark.parametrize("name", ["Front", "a b", "../x", "flight", "x" * 40, "é"])
def test_a_name_that_systemd_would_escape_is_refused(name: str) -> None:
    """The name stands in paths and unit names."""
    with pytest.raises(ValueError, match="expected small letters"):
        service.Service(name)


def test_only_groups_that_exist(tmp_path: Path) -> None:
    """A unit that names a missing group does not start."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("video:x:44:\n")
    assert setting(service.render(service.Service(), tmp_path), "SupplementaryGroups") == "video"


def test_another_home_is_made_writable() -> None:
    """A home outside /var/lib is no state directory of systemd's."""
    unit = service.render(service.Service(home=Path("/mnt/ssd/my flights")))
    assert setting(unit, "ReadWritePaths") == '"/mnt/ssd/my flights"'
    assert "StateDirectory=" not in unit


@needs_root
def test_a_password_stays_out_of_the_unit(image: Path) -> None:
    """Everyone can read units; the configuration belongs to root alone."""
    service.install(service.Service(), f"source = {json.dumps(SOURCE)}\n", image, Path("/bin/true"))
    unit, config = image / service.UNITS / "overflight.service", image / service.CONFIGS / "flight.toml"
    assert "pilot" not in unit.read_text()
    assert "pilot" in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600


@needs_root
def test_install_and_remove_can_be_repeated(image: Path) -> None:
    """Installing twice changes nothing; removing leaves nothing, not even the user."""
    for source in ("test://", "csi://0"):
        result = CliRunner().invoke(command, ["install", source, "--root", str(image)])
        assert result.exit_code == 0, result.output
    assert 'source = "csi://0"' in (image / "etc/overflight/flight.toml").read_text()
    assert (image / "etc/systemd/system/multi-user.target.wants/overflight.service").is_symlink()
    assert "overflight:" in (image / "etc/passwd").read_text()
    for said in ("deleted", "nothing to do"):
        result = CliRunner().invoke(command, ["remove", "--root", str(image)])
        assert (result.exit_code, said in result.output) == (0, True), result.output
    assert files(image) == set()
    assert "overflight" not in (image / "etc/passwd").read_text()


@needs_root
def test_a_user_that_was_there_before_stays(image: Path) -> None:
    """Remove deletes the user that install made, and no other."""
    with (image / "etc/passwd").open("a") as users:
        users.write("pilot:x:1000:1000::/home/pilot:/bin/sh\n")
    service.install(service.Service(user="pilot"), 'source = "test://"\n', image, Path("/bin/true"))
    service.remove(service.Service(), image)
    assert "pilot:" in (image / "etc/passwd").read_text()


@needs_root
def test_cameras_come_and_go_one_by_one(image: Path) -> None:
    """The shared unit and the user stay until the last camera is removed; other options for one are refused."""
    for name in ("front", "down"):
        service.install(service.Service(name), 'source = "test://"\n', image, Path("/bin/true"))
    with pytest.raises(ValueError, match="uses it with other options"):
        service.install(service.Service("down", watchdog_s=9), 'source = "test://"\n', image, Path("/bin/true"))
    service.remove(service.Service("front"), image)
    assert files(image) == {
        "etc/overflight/down.toml",
        "etc/systemd/system/overflight@.service",
        "etc/systemd/system/multi-user.target.wants/overflight@down.service",
    }
    assert "overflight:" in (image / "etc/passwd").read_text()
    service.remove(service.Service("down"), image)
    assert files(image) == set()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    """It lists what would be done."""
    result = CliRunner().invoke(command, ["install", "test://", "--dry-run", "--root", str(tmp_path)])
    assert (result.exit_code, "would write" in result.output) == (0, True), result.output
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ('source = "missing.mp4"', 2, "missing.mp4: no such file"),
        ('sorce = "test://"', 2, "did you mean 'source'?"),
        ('source = "test://"\nlabels = "none.safetensors"', 2, "none.safetensors: No such file"),
        ('source = "test://"\nbundle = "none"', 2, "no bundle here"),
        ('source = "test://"\ntarget = "none-such"', 3, "none-such"),
        ('source = "test://"\nlink = ["carrier-pigeon://x"]', 2, "expected one of mqtt://"),
        ('source = "test://"\nout = "flights/one"', 2, "a service begins a new flight at every start"),
    ],
)
def test_what_cannot_fly_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
    colour_bundle: Bundle,
    colour_bank: LabelBank,
    tmp_path: Path,
    program: Path,
    config: str,
    code: int,
    words: str,
) -> None:
    """Source, bank, bundle, engine and links are checked before anything is written, and the reason is one line."""
    monkeypatch.setattr(service, "program_path", lambda: program)
    monkeypatch.setattr(service, "UNITS", tmp_path / "units")
    monkeypatch.setattr(service, "CONFIGS", tmp_path / "configs")
    colour_bank.save(tmp_path / "bank.safetensors")
    defaults = {"bundle": colour_bundle.directory, "labels": "bank.safetensors"}
    lines = [config, *(f'{key} = "{value}"' for key, value in defaults.items() if key not in config)]
    (tmp_path / "flight.toml").write_text("\n".join(lines))
    arguments = ["install", "--config", str(tmp_path / "flight.toml"), "--user", "root"]
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, words in result.output) == (code, True), result.output
    assert not (tmp_path / "units").exists()
    assert not (tmp_path / "configs").exists()


@needs_root
def test_a_deployed_bundle_is_used_by_its_link(image: Path) -> None:
    """The links that an update moves stay, and an interrupted update is undone before each start."""
    options = ["--deployed", "--root", str(image), "--", "--pose", "udpin:0.0.0.0:14550"]
    result = CliRunner().invoke(command, ["install", "csi://0", *options])
    assert (result.exit_code, "nothing is deployed yet" in result.output) == (0, True), result.output
    config = (image / "etc/overflight/flight.toml").read_text()
    current = "/var/lib/overflight/deployments/current"
    for line in (f'bundle = "{current}/bundle"', f'labels = "{current}/bank.safetensors"', "watch-bank = true"):
        assert line in config
    assert "health = 9180" in config
    assert 'pose = "udpin:0.0.0.0:14550"' in config
    unit = (image / service.UNIT).read_text()
    assert setting(unit, "ExecStartPre").endswith(" update --resume --home /var/lib/overflight")
    assert "ExecStartPre" not in service.render(service.Service(), program=Path("/x"))


@needs_root
def test_services_next_to_each_other_have_ports_of_their_own(image: Path) -> None:
    """Two cameras and the service without a name: the second would have found its health port taken."""
    for name in ("front", "rear", ""):
        options = ["--root", str(image), *(["--name", name] if name else [])]
        result = CliRunner().invoke(command, ["install", "csi://0", *options])
        assert result.exit_code == 0, result.output
    ports = {
        path.stem: re.findall(r"health = (\d+)", path.read_text()) for path in (image / "etc/overflight").glob("*")
    }
    assert ports == {"front": ["9180"], "rear": ["9181"], "flight": ["9182"]}
    again = CliRunner().invoke(command, ["install", "csi://1", "--name", "front", "--root", str(image)])
    assert again.exit_code == 0
    assert "health = 9180" in (image / "etc/overflight/front.toml").read_text()


def test_home_directories_are_hidden_unless_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels, bundle or program in a home make it readable, and never writable."""
    monkeypatch.setattr(service, "_own_files", list)
    for program, config, expected in (
        (Path("/opt/overflight"), 'labels = "/opt/bank"', "yes"),
        (Path("/opt/overflight"), 'labels = "/home/pilot/bank"', "read-only"),
        (Path("/home/pilot/overflight"), "", "read-only"),
    ):
        unit = service.render(service.Service(), program=program, configs=config)
        assert setting(unit, "ProtectHome") == expected
    monkeypatch.setattr(service, "_own_files", lambda: ["/root/.pyenv/bin/python3.12"])
    assert setting(service.render(service.Service(), program=Path("/opt/o")), "ProtectHome") == "read-only"


def test_devices_are_an_allow_list() -> None:
    """Cameras, GPU and serial ports by their kernel names, others on request, and nothing else."""
    unit = service.render(service.Service(devices=("/dev/i2c-1",)))
    assert setting(unit, "DevicePolicy") == "closed"
    allowed = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("DeviceAllow=")]
    assert {"char-video4linux rw", "char-drm rw", "char-nv* rw", "/dev/nvmap rw", "/dev/i2c-1 rw"} <= set(allowed)
    assert not [one for one in allowed if one.startswith(("char-mem", "block-", "/dev/sd", "/dev/mem"))]


@pytest.mark.parametrize("wrong", [["--deployed", "--bundle", "b"], ["--device", "video0"], ["--device", "/dev/a b"]])
def test_mistakes_are_usage_errors(wrong: list[str], tmp_path: Path) -> None:
    """Exit code 2, and nothing is written."""
    result = CliRunner().invoke(command, ["install", "csi://0", "--root", str(tmp_path), *wrong])
    assert result.exit_code == 2, result.output
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_password_in_an_option_stays_out_of_the_unit(image: Path) -> None:
    """Options after -- are written to the configuration too."""
    options = ["--", "--link", "mqtt://pilot:secret@host/prefix"]
    result = CliRunner().invoke(command, ["install", "csi://0", "--root", str(image), *options])
    assert (result.exit_code, "secret" in result.output) == (0, False), result.output
    assert "secret" not in (image / service.UNIT).read_text()
    assert "secret" in (image / "etc/overflight/flight.toml").read_text()


@needs_root
@pytest.mark.parametrize("name", ["", "front"])
def test_the_home_of_an_installed_service_is_found(image: Path, name: str) -> None:
    """An update asks the unit where its service keeps its state."""
    assert service.installed_home(image) is None
    service.install(service.Service(name, home=Path("/mnt/my 100% ssd")), "", image, Path("/bin/true"))
    assert service.installed_home(image) == Path("/mnt/my 100% ssd")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("config", ["", 'labels = "/home/pilot/bank.safetensors"'])
def test_the_exposure_is_low(tmp_path: Path, config: str) -> None:
    """systemd-analyze security gives at most 3.0; what is left is explained in jetson/README.md."""
    unit = tmp_path / "overflight.service"
    unit.write_text(service.render(service.Service(), program=Path("/bin/true"), configs=config))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze reads no files")
    assert done.returncode == 0, done.stdout[-300:]


def test_without_root_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 and the word sudo."""

    def refuse(*_: object, **__: object) -> list[str]:
        raise PermissionError(13, "Permission denied", "/etc/systemd/system")

    monkeypatch.setattr(service, "install", refuse)
    result = CliRunner().invoke(command, ["install", "test://", "--root", str(tmp_path)])
    assert (result.exit_code, "sudo" in result.output) == (3, True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["", "front"])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str) -> None:
    """systemd-analyze verify has nothing to say, also to words that need quotes."""
    what = service.Service(name, home=Path("/mnt/a b"))
    unit = tmp_path / what.unit
    unit.write_text(service.render(what, program=Path("/bin/true")))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@needs_manager
def test_a_real_manager_restarts_it_when_frames_stop(manager: list[str], tmp_path: Path, program: Path) -> None:
    """Started, hardened, aborted by the watchdog two seconds after the last frame, restarted, stopped cleanly, gone."""
    before = footprint(manager).splitlines()
    (tmp_path / "install.py").write_text(
        "from pathlib import Path\nfrom overflight.jetson import service\n"
        f"program = Path({str(HERE / 'standin.py')!r})\n"
        "Path('/etc/secret').write_text('rtsp://me:password@h/x')\nPath('/etc/secret').chmod(0o600)\n"
        "service.install(service.Service(watchdog_s=2), 'source-file = \"/etc/secret\"', program=program)\n"
    )
    source = f"PYTHONPATH={HERE.parents[1] / 'src'}"
    assert inside(manager, "env", source, sys.executable, tmp_path / "install.py") == ""
    wait_for(manager, "ActiveState=active")
    said = journal(manager)
    assert "'run', '--config', '/run/credentials/overflight.service/flight.toml'" in said
    assert "etc-writable False here /var/lib/overflight" in said
    assert " user 0\n" not in said
    assert "credentials {'flight.toml': 27, 'source-file': 22}" in said
    time.sleep(3)
    assert "NRestarts=0" in inside(manager, "systemctl", "show", "overflight")
    inside(manager, "touch", "/var/lib/overflight/frames-stopped")
    wait_for(manager, "NRestarts=1")
    inside(manager, "rm", "/var/lib/overflight/frames-stopped")
    wait_for(manager, "ActiveState=active")
    assert "Watchdog timeout (limit 2s)" in journal(manager)
    inside(manager, "systemctl", "stop", "overflight")
    wait_for(manager, "Result=success")
    assert "ran userdel overflight" in inside(manager, program, "service", "remove")
    assert footprint(manager).splitlines() == [*before, "/var/lib/overflight"]
    assert " root root " in inside(manager, "ls", "-ld", "/var/lib/overflight")
    inside(manager, program, "service", "remove", "--purge")


CONFIG = """\
# A test flight.
source = "test://?fps=10&size=320x240"  # no camera
labels = "bank.safetensors"
bundle = "{bundle}"
pose = "track.csv"
camera = "hfov=70,vfov=50"
link = ["cot+udp://127.0.0.1:{port}"]
health = {port}
"""


@pytest.mark.slow
@needs_manager
def test_a_real_flight_under_a_real_manager(
    manager: list[str], colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path, program: Path
) -> None:
    """Installed from a configuration with pose, link and health; frozen and restarted; removed without a trace."""
    before = footprint(manager)
    colour_bank.save(tmp_path / "bank.safetensors")
    now = time.time()
    rows = [f"{now + s},49.0,8.0,300,60,0,0,0,-90" for s in range(-5, 600, 5)]
    (tmp_path / "track.csv").write_text("utc_s,lat,lon,alt,rel_alt,yaw,pitch,roll,gimbal_pitch\n" + "\n".join(rows))
    (tmp_path / "flight.toml").write_text(
        CONFIG.format(bundle=colour_bundle.directory, port=8391) + 'link-file = ["links"]\n'
    )
    (tmp_path / "links").write_text("http://me:password@127.0.0.1:9/x\n")
    (tmp_path / "links").chmod(0o600)
    install: list[str | Path] = [
        program,
        "service",
        "install",
        "--config",
        tmp_path / "flight.toml",
        "--watchdog",
        "6",
        "--user",
        "root",
    ]
    assert "would write /etc/overflight/flight.toml" in inside(manager, *install, "--dry-run")
    assert footprint(manager) == before
    said = inside(manager, *install)
    assert "wrote /etc/overflight/flight.toml (readable by root only)" in said
    wait_for(manager, "ActiveState=active", timeout_s=90)
    config = inside(manager, "cat", "/etc/overflight/flight.toml")
    assert "# A test flight." in config
    assert 'link-file = ["link-file"]' in config
    links = inside(manager, "ls", "-l", "/run/credentials/overflight.service")
    assert "link-file" in links
    assert f'labels = "{tmp_path}/bank.safetensors"' in config
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8391/bank').read().decode())"
    assert colour_bank.sha256 in inside(manager, sys.executable, "-c", ask)
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
    inside(manager, program, "service", "remove", "--purge")
    assert footprint(manager) == before


@pytest.mark.slow
@needs_manager
def test_two_cameras_fly_at_once(
    manager: list[str], colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path, program: Path
) -> None:
    """Each instance flies its own configuration into its own folder."""
    colour_bank.save(tmp_path / "bank.safetensors")
    for name, port in (("front", 8392), ("down", 8393)):
        config = CONFIG.format(bundle=colour_bundle.directory, port=port).replace('pose = "track.csv"\n', "")
        config = config.replace('camera = "hfov=70,vfov=50"\n', "")
        (tmp_path / f"{name}.toml").write_text(config)
        arguments: list[str | Path] = ["--config", tmp_path / f"{name}.toml", "--name", name, "--user", "root"]
        inside(manager, program, "service", "install", *arguments)
    for name in ("front", "down"):
        wait_for(manager, "ActiveState=active", f"overflight@{name}", timeout_s=90)
        assert "flight.json" in inside(manager, "sh", "-c", f"ls /var/lib/overflight/{name}/flights/*")
    inside(manager, program, "service", "remove", "--name", "front")
    assert "ActiveState=active" in inside(manager, "systemctl", "show", "overflight@down")
    inside(manager, program, "service", "remove", "--name", "down")
    assert "overflight" not in inside(manager, "ls", "/etc/systemd/system")
