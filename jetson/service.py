"""The service: a systemd unit that runs from boot and is restarted without limit; only its own folder is writable."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from overflight.jetson.checks import parse_groups
from overflight.jetson.sysfs import text

UNIT = Path("etc/systemd/system/overflight.service")
ENVIRONMENT = Path("etc/overflight/source.env")
HOME = Path("/var/lib/overflight")
PORT = 9180  # of the health server
_GROUPS = ("video", "render", "dialout")
# Names in /proc/devices, with globs, and nodes of the "misc" class, which have no name of their own there. What does
# not exist on a machine is ignored.
_DEVICES = (
    "char-video4linux", "char-media", "char-drm", "char-dma_heap", "char-nv*", "char-host1x*", "char-tegra*",
    "/dev/nvmap", "/dev/nvsciipc", "/dev/host1x-fence", "char-ttyTHS", "char-ttyUSB", "char-ttyACM", "char-ttyS",
    "char-ttyAMA",
)  # fmt: skip
_SECRET = re.compile(r"://[^/]*@|(?i:passw|passphrase|token|secret)[^=]*=")
_HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True)
class Service:
    """What the service runs, and as which user. ``home`` holds its flights and its engine store.

    ``deployed`` uses the bundle and the bank of ``overflight deploy``. ``options`` are further options of ``run``,
    ``devices`` further device nodes.
    """

    source: str
    labels: Path | None = None
    bundle: Path | None = None
    home: Path = HOME
    user: str = "overflight"
    watchdog_s: int = 30
    memory_high: str = "60%"
    memory_max: str = "75%"
    health: int = PORT
    deployed: bool = False
    devices: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.deployed and (self.labels or self.bundle):
            raise ValueError("--deployed: the deployment brings bundle and labels; leave out --bundle and --labels")
        secret = next((option for option in self.options if _SECRET.search(option)), None)
        if secret is not None:
            raise ValueError(
                "a password in an option would stand in a unit that every user can read; use a file for it"
            )
        for device in self.devices:
            if not device.startswith(("/dev/", "char-", "block-")) or any(sign.isspace() for sign in device):
                raise ValueError(
                    f"--device {device}: expected a node such as /dev/ttyTHS1, or a class such as char-ttyS"
                )

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``run`` after the source."""
        if self.deployed:
            current = self.home / "deployments" / "current"
            chosen = ["--bundle", f"{current}/bundle", "--labels", f"{current}/bank.safetensors", "--watch-bank"]
        else:
            chosen = [*_option("--labels", self.labels), *_option("--bundle", self.bundle)]
        return [*chosen, "--health", str(self.health), *self.options]


def render(service: Service, root: Path = Path("/"), program: Path | None = None) -> str:
    """Write the unit. The source is not in it: it may hold a password, and every user can read units."""
    program = program or _program()
    groups = parse_groups(text(root / "etc/group") or "")
    own = service.home == HOME
    writable = (
        f"StateDirectory={HOME.name}\nStateDirectoryMode=0755" if own else f"ReadWritePaths={_quote(service.home)}"
    )
    template = Template(Path(__file__).with_name("overflight.service").read_text(encoding="utf-8"))
    return template.substitute(
        program=_quote(program),
        resume=_resume(service, program),
        arguments=" ".join(_quote(argument) for argument in service.arguments),
        environment=_specifier(f"/{ENVIRONMENT}"),
        home=_specifier(str(service.home)),
        user=service.user,
        groups=" ".join(group for group in _GROUPS if group in groups),
        watchdog_s=service.watchdog_s,
        memory_high=service.memory_high,
        memory_max=service.memory_max,
        writable=writable,
        protect_home=_protect_home(program, service),
        devices="\n".join(f"DeviceAllow={_specifier(device)} rw" for device in (*_DEVICES, *service.devices)),
    )


def install(service: Service, root: Path = Path("/"), program: Path | None = None) -> list[str]:
    """Write the unit and the source, add the user, and start the service; returns what was done.

    Only writes the files where ``root`` is not this machine's own or systemd does not run. Raises PermissionError.
    """
    unit, environment = root / UNIT, root / ENVIRONMENT
    unit.parent.mkdir(parents=True, exist_ok=True)
    environment.parent.mkdir(parents=True, exist_ok=True)
    _write(environment, f"OVERFLIGHT_SOURCE={_value(service.source)}\n", 0o600)
    _write(unit, render(service, root, program), 0o644)
    done = [f"wrote {unit}", f"wrote {environment} (readable by root only)"]
    if root != Path("/"):
        return done
    if not _has_user(root, service.user):
        shell = shutil.which("nologin") or "/usr/sbin/nologin"
        _run("useradd", "--system", "--home-dir", str(service.home), "--no-create-home", "--shell", shell, service.user)
        done.append(f"added the user {service.user}")
    service.home.mkdir(parents=True, exist_ok=True)
    if service.home != HOME:
        shutil.chown(service.home, service.user)
    if not systemd_runs(root):
        return [*done, "systemd does not run here: the service starts at the next boot"]
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", unit.name)
    _run("systemctl", "restart", "--no-block", unit.name)
    return [*done, "started; follow it with: journalctl -fu overflight"]


def remove(root: Path = Path("/")) -> list[str]:
    """Stop the service and delete its files; flights, engines and the user are kept. Safe to call twice."""
    done: list[str] = []
    if root == Path("/") and systemd_runs(root) and (root / UNIT).exists():
        _run("systemctl", "disable", "--now", UNIT.name)
        done.append("stopped")
    for path in (root / UNIT, root / ENVIRONMENT):
        if path.exists():
            path.unlink()
            done.append(f"deleted {path}")
    if root == Path("/") and systemd_runs(root):
        _run("systemctl", "daemon-reload")
    return done


def _own_files() -> list[str]:
    """Return where this interpreter and this package really lie: a link in /opt may point into a home directory."""
    return [str(Path(path).resolve()) for path in (sys.executable, __file__)]


def installed_home(root: Path = Path("/")) -> Path | None:
    """Return the home of the installed service, or None where none is installed."""
    found = re.search(r'^Environment="OVERFLIGHT_HOME=(.*?)"', text(root / UNIT) or "", re.MULTILINE)
    return None if found is None else Path(found[1].replace("%%", "%"))


def systemd_runs(root: Path = Path("/")) -> bool:
    """Whether systemd is this machine's service manager; the test of sd_booted(3)."""
    return (root / "run/systemd/system").is_dir()


def _option(name: str, path: Path | None) -> list[str]:
    """Return an option with an absolute path, whose links are kept: an update moves them."""
    return [] if path is None else [name, str(path.absolute())]


def _resume(service: Service, program: Path) -> str:
    """Undo an interrupted deployment before each start; if that fails, the flight starts nevertheless."""
    if not service.deployed:
        return ""
    return f"ExecStartPre=-{_quote(program)} update --resume --home {_quote(service.home)}\n"


def _protect_home(program: Path, service: Service) -> str:
    """Hide home directories, unless something that the service reads lies there."""
    read = [str(program), str(program.resolve()), *_own_files(), *service.arguments]
    return "read-only" if any(path.startswith(_HOMES) for path in read) else "yes"


def _program() -> Path:
    """Return the path by which ``overflight`` was called: its link, which an upgrade moves, not one version's path."""
    called = Path(sys.argv[0]).absolute()
    return called if called.name == "overflight" and called.is_file() else Path(sys.executable).with_name("overflight")


def _specifier(value: str) -> str:
    """Escape percent signs, which systemd reads as specifiers."""
    return value.replace("%", "%%")


def _quote(argument: str | Path) -> str:
    """Quote one word of a command line as systemd.service(5) reads it: specifiers, variables, then the quotes."""
    word = _specifier(str(argument)).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("\n", "\\n")
    return f'"{word}"' if not word or any(sign in word for sign in " \t;\\\"'#") else word


def _value(value: str) -> str:
    """Quote a value as systemd.exec(5) reads an EnvironmentFile."""
    for sign in ("\\", '"', "`", "$"):
        value = value.replace(sign, f"\\{sign}")
    return f'"{value}"'


def _has_user(root: Path, user: str) -> bool:
    return any(line.startswith(f"{user}:") for line in (text(root / "etc/passwd") or "").splitlines())


def _write(path: Path, content: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
