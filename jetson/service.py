"""The service: the systemd unit that flies from boot, restarted for ever, with nothing writable but its own folder."""

from __future__ import annotations

import os
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
_GROUPS = ("video", "render", "dialout")


@dataclass(frozen=True)
class Service:
    """What the service flies, and as whom. ``home`` holds its flights and its engine store."""

    source: str
    labels: Path | None = None
    bundle: Path | None = None
    home: Path = HOME
    user: str = "overflight"
    watchdog_s: int = 30
    memory_high: str = "60%"
    memory_max: str = "75%"


def render(service: Service, root: Path = Path("/"), program: Path | None = None) -> str:
    """Write the unit. The source is not in it: it may hold a password, and units can be read by everyone."""
    arguments = [*_option("--labels", service.labels), *_option("--bundle", service.bundle)]
    groups = parse_groups(text(root / "etc/group") or "")
    own = service.home == HOME
    writable = (
        f"StateDirectory={HOME.name}\nStateDirectoryMode=0755" if own else f"ReadWritePaths={_quote(service.home)}"
    )
    template = Template(Path(__file__).with_name("overflight.service").read_text(encoding="utf-8"))
    return template.substitute(
        program=_quote(program or _program()),
        arguments=" ".join(_quote(argument) for argument in arguments),
        environment=_specifier(f"/{ENVIRONMENT}"),
        home=_specifier(str(service.home)),
        user=service.user,
        groups=" ".join(group for group in _GROUPS if group in groups),
        watchdog_s=service.watchdog_s,
        memory_high=service.memory_high,
        memory_max=service.memory_max,
        writable=writable,
    )


def install(service: Service, root: Path = Path("/"), program: Path | None = None) -> list[str]:
    """Write unit and source, make the user, and start; returns what was done.

    Only writes the files where ``root`` is not this machine's own or no systemd runs. Raises PermissionError.
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
        done.append(f"made the user {service.user}")
    service.home.mkdir(parents=True, exist_ok=True)
    if service.home != HOME:
        shutil.chown(service.home, service.user)
    if not systemd_runs(root):
        return [*done, "no systemd runs here: the service starts at the next boot"]
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", unit.name)
    _run("systemctl", "restart", "--no-block", unit.name)
    return [*done, "started; follow it with: journalctl -fu overflight"]


def remove(root: Path = Path("/")) -> list[str]:
    """Stop the service and delete its files; flights, engines and the user stay. Safe to call twice."""
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


def systemd_runs(root: Path = Path("/")) -> bool:
    """Whether systemd is this machine's manager, as sd_booted(3) asks it."""
    return (root / "run/systemd/system").is_dir()


def _option(name: str, path: Path | None) -> list[str]:
    return [] if path is None else [name, str(path.resolve())]


def _program() -> Path:
    """Return how ``overflight`` was called: by its link, which an upgrade moves, rather than by one version's path."""
    called = Path(sys.argv[0]).absolute()
    return called if called.name == "overflight" and called.is_file() else Path(sys.executable).with_name("overflight")


def _specifier(value: str) -> str:
    """Hide a percent sign from systemd's specifiers."""
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
