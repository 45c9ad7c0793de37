"""The service: the systemd unit that starts a flight at boot and restarts it whenever it ends.

Each service reads one configuration file of ``overflight run``. A service without a name is ``overflight.service``; one
with a name, such as ``front``, is the instance ``overflight@front.service``, so several cameras can fly at once.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from overflight.jetson.checks import parse_groups
from overflight.jetson.credentials import drop_in, separate
from overflight.jetson.install_steps import Steps
from overflight.jetson.sysfs import text

UNITS = Path("etc/systemd/system")
CONFIGS = Path("etc/overflight")
HOME = Path("/var/lib/overflight")
UNIT = UNITS / "overflight.service"
PAGE_UNIT = UNITS / "overflight-serve.service"
PORT = 9180  # of the first service's health server; another service takes the next one that is free
MADE_BY = "Overflight service"  # the comment of the user that install makes: remove deletes no other
GROUPS = ("video", "render", "dialout")
# Names in /proc/devices, with globs, and nodes of the "misc" class, which have no name of their own there. What does
# not exist on a machine is ignored.
_DEVICES = (
    "char-video4linux", "char-media", "char-drm", "char-dma_heap", "char-nv*", "char-host1x*", "char-tegra*",
    "/dev/nvmap", "/dev/nvsciipc", "/dev/host1x-fence", "char-ttyTHS", "char-ttyUSB", "char-ttyACM", "char-ttyS",
    "char-ttyAMA",
)  # fmt: skip
_HOMES = ("/home", "/root", "/run/user")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Service:
    """How a service runs. ``home`` holds its flights and its engine store.

    ``deployed`` uses the bundle and the bank of ``overflight deploy``; ``devices`` are further device nodes.
    """

    name: str = ""
    home: Path = HOME
    user: str = "overflight"
    watchdog_s: int = 30
    memory_high: str = "60%"
    memory_max: str = "75%"
    deployed: bool = False
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name and (self.name == "flight" or not _NAME.fullmatch(self.name)):
            raise ValueError(f"--name {self.name}: expected small letters, digits, - or _, such as front")
        for device in self.devices:
            if not device.startswith(("/dev/", "char-", "block-")) or any(sign.isspace() for sign in device):
                raise ValueError(
                    f"--device {device}: expected a node such as /dev/ttyTHS1, or a class such as char-ttyS"
                )

    @property
    def unit(self) -> str:
        """The name of the service as systemctl takes it."""
        return f"overflight@{self.name}.service" if self.name else "overflight.service"

    @property
    def unit_file(self) -> Path:
        """The unit's path below the root; instances share one."""
        return UNITS / ("overflight@.service" if self.name else "overflight.service")

    @property
    def link(self) -> Path:
        """The link that starts the service at boot."""
        return UNITS / "multi-user.target.wants" / self.unit

    @property
    def drop_in(self) -> Path:
        """What this service alone adds to its unit: the address files that systemd hands to it."""
        return UNITS / f"{self.unit}.d/credentials.conf"

    @property
    def config(self) -> Path:
        """The path of the flight's configuration below the root."""
        return CONFIGS / f"{self.name or 'flight'}.toml"


def render(service: Service, root: Path = Path("/"), program: Path | None = None, configs: str = "") -> str:
    """Write the unit; ``configs`` are the texts of the configurations that it reads.

    They are not in it: they may hold a password, and everyone can read units.
    """
    program = program or program_path()
    groups = parse_groups(text(root / "etc/group") or "")
    below = "/%i" if service.name else ""
    if service.home == HOME:
        state = f"{HOME.name} {HOME.name}/%i" if service.name else HOME.name
        writable = f"StateDirectory={state}\nStateDirectoryMode=0755"
    else:
        writable = f"ReadWritePaths={quote(service.home)}"
    template = Template(Path(__file__).with_name("overflight.service").read_text(encoding="utf-8"))
    return template.substitute(
        program=quote(program),
        resume=_resume(service, program),
        config=f"/{CONFIGS}/{'%i' if service.name else 'flight'}.toml",
        name=service.unit_file.name,
        described=" (%i)" if service.name else "",
        home=specifier(str(service.home)),
        work=specifier(str(service.home)) + below,
        user=service.user,
        groups=" ".join(group for group in GROUPS if group in groups),
        watchdog_s=service.watchdog_s,
        memory_high=service.memory_high,
        memory_max=service.memory_max,
        writable=writable,
        protect_home=protect_home(program, configs),
        devices="\n".join(f"DeviceAllow={specifier(device)} rw" for device in (*_DEVICES, *service.devices)),
    )


def install(
    service: Service, config: str, root: Path = Path("/"), program: Path | None = None, *, dry_run: bool = False
) -> list[str]:
    """Write the unit and the flight's configuration, make the user, and start; return what was done.

    With ``dry_run`` nothing is done and the same lines say what would be. Where ``root`` is not this machine's own, the
    files are written and the service starts when that system boots. Raises PermissionError, RuntimeError when a program
    fails, ValueError for a configuration that a service cannot have.
    """
    if re.search(r"^\s*out\s*=", config, re.MULTILINE):
        raise ValueError("out: a service begins a new flight at every start; remove this key")
    config, secrets = separate(config)
    others = _instances(root, service)
    configs = [config, *((root / CONFIGS / f"{name}.toml").read_text(encoding="utf-8") for name in others)]
    unit = render(service, root, program, "\n".join(configs))
    if others and _shared_part(text(root / service.unit_file) or "") != _shared_part(unit):
        raise ValueError(
            f"{service.unit_file.name}: the service {others[0]} uses it with other options; "
            "give the same --home, --user, --watchdog, --device and --deployed"
        )
    steps = Steps(dry_run)
    steps.write(root / service.config, config, 0o600)
    steps.write(root / service.unit_file, unit, 0o644)
    if secrets:
        steps.write(root / service.drop_in, drop_in(secrets), 0o644)
    elif not dry_run:
        steps.delete(root / service.drop_in)
    steps.link(root / service.link, Path("/") / service.unit_file)
    make_user(steps, root, service.user, service.home)
    if root != Path("/"):
        return steps.done
    work = service.home / service.name
    steps.folder(work)
    if service.home != HOME:
        steps.own(work, service.user)
    if not systemd_runs(root):
        return [*steps.done, f"{service.unit} starts at the next boot: systemd is not running here"]
    steps.run("systemctl", "daemon-reload")
    steps.run("systemctl", "restart", "--no-block", service.unit)
    return [*steps.done, f"follow it with: journalctl -fu {service.unit.removesuffix('.service')}"]


def remove(service: Service, root: Path = Path("/"), *, purge: bool = False) -> list[str]:
    """Stop the service and delete all that install made; return what was done. Safe to call twice.

    Flights, engines and the outbox stay, owned by root, unless ``purge`` is set. What other services need stays too.
    """
    service = _as_installed(service, root)
    steps = Steps()
    live = root == Path("/") and systemd_runs(root)
    if live and ((root / service.unit_file).exists() or (root / service.link).is_symlink()):
        steps.run("systemctl", "stop", service.unit)
        steps.run("systemctl", "reset-failed", service.unit, needed=False)
    steps.delete(root / service.link, root / service.config, root / CONFIGS / "source.env", root / service.drop_in)
    steps.delete_empty((root / service.drop_in).parent)
    others = [*installed(root), *(["page"] if (root / PAGE_UNIT).exists() else [])]
    if not _instances(root, service):
        steps.delete(root / service.unit_file)
    if live:
        steps.run("systemctl", "daemon-reload")
    if not others:
        remove_user(steps, root, service.user)
        steps.delete_empty(root / CONFIGS, root / service.link.parent)
    if root == Path("/"):
        remove_home(service, steps, last=not others, purge=purge)
    return steps.done if any(line != "ran systemctl daemon-reload" for line in steps.done) else []


def installed_home(root: Path = Path("/")) -> Path | None:
    """Return the home of the installed services, or None where none is installed."""
    for unit in ("overflight.service", "overflight@.service"):
        if home := _environment_home(text(root / UNITS / unit) or ""):
            return home
    return None


def free_port(service: Service, root: Path = Path("/")) -> int:
    """Return the first port from ``PORT`` on that no other installed service's configuration names."""
    configs = [path for path in (root / CONFIGS).glob("*.toml") if path != root / service.config]
    lines = "\n".join(text(path) or "" for path in configs)
    taken = {int(port) for port in re.findall(r"^\s*health\s*=\s*(\d+)", lines, re.MULTILINE)}
    return next(port for port in range(PORT, 65536) if port not in taken)


def systemd_runs(root: Path = Path("/")) -> bool:
    """Whether systemd is this machine's manager, as sd_booted(3) asks it."""
    return (root / "run/systemd/system").is_dir()


def program_path() -> Path:
    """Return how ``overflight`` was called: by its link, which an upgrade moves, rather than by one version's path."""
    called = Path(sys.argv[0]).absolute()
    return called if called.name == "overflight" and called.is_file() else Path(sys.executable).with_name("overflight")


def _own_files() -> list[str]:
    """Return where this interpreter and this package really lie: a link in /opt may point into a home directory."""
    return [str(Path(path).resolve()) for path in (sys.executable, __file__)]


def _resume(service: Service, program: Path) -> str:
    """Undo an interrupted deployment before each start; if that fails, the flight starts nevertheless."""
    if not service.deployed:
        return ""
    return f"ExecStartPre=-{quote(program)} update --resume --home {quote(service.home)}\n"


def protect_home(program: Path, configs: str) -> str:
    """Hide home directories, unless something that the service reads lies there."""
    read = [str(program), str(program.resolve()), *_own_files(), *re.findall(r'"(/[^"]*)', configs)]
    return "read-only" if any(path.startswith(_HOMES) for path in read) else "yes"


def _shared_part(unit: str) -> list[str]:
    """Return the lines of a unit that do not depend on what the configurations name."""
    return [line for line in unit.strip().splitlines() if not line.startswith("ProtectHome=")]


def _environment_home(unit: str) -> Path | None:
    found = re.search(r'^Environment="OVERFLIGHT_HOME=(.*?)"', unit, re.MULTILINE)
    return None if found is None else Path(found[1].replace("%%", "%"))


def make_user(steps: Steps, root: Path, user: str, home: Path) -> None:
    """Make the user of a service, unless it is there."""
    if user_entry(root, user):
        return
    shell = shutil.which("nologin") or "/usr/sbin/nologin"
    options = ["--system", "--home-dir", str(home), "--no-create-home", "--shell", shell, "--comment", MADE_BY]
    steps.run("useradd", *_prefix(root), *options, user)


def remove_user(steps: Steps, root: Path, user: str) -> None:
    """Delete the user of a service if install made it."""
    if f":{MADE_BY}:" in user_entry(root, user):
        steps.run("userdel", *_prefix(root), user)


def _prefix(root: Path) -> list[str]:
    return [] if root == Path("/") else ["--prefix", str(root)]


def installed(root: Path) -> list[str]:
    """Return the names of the configurations that are there."""
    return sorted(path.stem for path in (root / CONFIGS).glob("*.toml"))


def _instances(root: Path, service: Service) -> list[str]:
    """Return the other services that share a service's unit."""
    return [name for name in installed(root) if service.name and name not in ("flight", service.name)]


def _as_installed(service: Service, root: Path) -> Service:
    """Return the service with the user and the home that its unit names."""
    unit = text(root / service.unit_file) or ""
    home = _environment_home(unit)
    user = re.search(r"^User=(.*)$", unit, re.MULTILINE)
    if home is None or user is None:
        return service
    return replace(service, home=home, user=user[1])


def remove_home(service: Service, steps: Steps, *, last: bool, purge: bool) -> None:
    """Delete a home that is empty or shall be purged; give what stays to root once the last service is gone."""
    work = service.home / service.name
    if purge and (service.name or last):
        steps.delete(work)
    else:
        steps.delete_empty(work)
    if not last or not service.home.is_dir():
        return
    steps.delete_empty(service.home)
    if service.home.is_dir():
        for path in [service.home, *service.home.rglob("*")]:
            os.chown(path, 0, 0, follow_symlinks=False)  # the number of a deleted user may become another's
        steps.done.append(f"kept the flights and engines in {service.home}, owned by root now")


def specifier(value: str) -> str:
    """Hide a percent sign from systemd's specifiers."""
    return value.replace("%", "%%")


def quote(argument: str | Path) -> str:
    """Quote one word of a command line as systemd.service(5) reads it: specifiers, variables, then the quotes."""
    word = specifier(str(argument)).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("\n", "\\n")
    return f'"{word}"' if not word or any(sign in word for sign in " \t;\\\"'#") else word


def user_entry(root: Path, user: str) -> str:
    """Return a user's line in the system's list of users; empty where there is none."""
    lines = (text(root / "etc/passwd") or "").splitlines()
    return next((line for line in lines if line.startswith(f"{user}:")), "")
