"""The page's service: the systemd unit that serves the page of a field station from boot."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from overflight.jetson.install_steps import Steps
from overflight.jetson.service import (
    CONFIGS,
    HOME,
    PAGE_UNIT,
    UNITS,
    Service,
    installed,
    make_user,
    program_path,
    protect_home,
    quote,
    remove_home,
    remove_user,
    specifier,
    systemd_runs,
)
from overflight.jetson.sysfs import text

NAME = PAGE_UNIT.name
LINK = UNITS / "multi-user.target.wants" / NAME


@dataclass(frozen=True)
class PageService:
    """How the page is served: ``arguments`` are those of ``overflight serve``, paths absolute.

    ``archive`` is made writable, since reviews are kept in it. ``token_file`` is handed over by systemd, so that only
    root needs to be able to read it.
    """

    arguments: tuple[str, ...] = ()
    archive: Path | None = None
    token_file: Path | None = None
    home: Path = HOME
    user: str = "overflight"


def render(page: PageService, program: Path | None = None) -> str:
    """Write the unit."""
    program = program or program_path()
    token = [] if page.token_file is None else ["--token-file", "${CREDENTIALS_DIRECTORY}/token"]
    command = [quote(program), "serve", *map(quote, page.arguments), *token]
    writable = [] if page.archive is None else [f"ReadWritePaths={quote(page.archive)}"]
    if page.home == HOME:
        writable += [f"StateDirectory={HOME.name}", "StateDirectoryMode=0755"]
    else:
        writable.append(f"ReadWritePaths={quote(page.home)}")
    temporary = _temporary(page, program)
    template = Template(Path(__file__).with_name(NAME).read_text(encoding="utf-8"))
    return template.substitute(
        command=" ".join(command),
        credential="" if page.token_file is None else f"LoadCredential=token:{specifier(str(page.token_file))}\n",
        home=specifier(str(page.home)),
        user=page.user,
        protect_home=_homes(page, program),
        private_tmp="no" if temporary else "yes",
        writable="\n".join([*writable, *temporary]),
    )


def install(
    page: PageService, root: Path = Path("/"), program: Path | None = None, *, dry_run: bool = False
) -> list[str]:
    """Write the unit, make the user, and start; return what was done, or with ``dry_run`` what would be."""
    steps = Steps(dry_run)
    steps.write(root / PAGE_UNIT, render(page, program), 0o644)
    steps.link(root / LINK, Path("/") / PAGE_UNIT)
    make_user(steps, root, page.user, page.home)
    if root != Path("/"):
        return steps.done
    steps.folder(page.home)
    if page.home != HOME:
        steps.own(page.home, page.user)
    if not systemd_runs(root):
        return [*steps.done, f"{NAME} starts at the next boot: systemd is not running here"]
    steps.run("systemctl", "daemon-reload")
    steps.run("systemctl", "restart", "--no-block", NAME)
    return [*steps.done, f"follow it with: journalctl -fu {NAME.removesuffix('.service')}"]


def remove(root: Path = Path("/"), *, purge: bool = False) -> list[str]:
    """Stop the page's service and delete all that install made; return what was done. Safe to call twice."""
    steps = Steps()
    service = _as_installed(root)
    if service is None and not (root / LINK).is_symlink():
        return []
    live = root == Path("/") and systemd_runs(root)
    if live:
        steps.run("systemctl", "stop", NAME)
        steps.run("systemctl", "reset-failed", NAME, needed=False)
    steps.delete(root / LINK, root / PAGE_UNIT)
    if live:
        steps.run("systemctl", "daemon-reload")
    others = installed(root)
    if service is not None and not others:
        remove_user(steps, root, service.user)
        steps.delete_empty(root / CONFIGS, (root / LINK).parent)
        if root == Path("/"):
            remove_home(service, steps, last=True, purge=purge)
    return steps.done


def _as_installed(root: Path) -> Service | None:
    """Return the home and the user that the installed unit names."""
    unit = text(root / PAGE_UNIT)
    if unit is None:
        return None
    home = re.search(r'^Environment="OVERFLIGHT_HOME=(.*?)"', unit, re.MULTILINE)
    user = re.search(r"^User=(.*)$", unit, re.MULTILINE)
    known = Service()
    known = known if home is None else replace(known, home=Path(home[1].replace("%%", "%")))
    return known if user is None else replace(known, user=user[1])


def _temporary(page: PageService, program: Path) -> list[str]:
    """Return the line that leaves /tmp and /var/tmp as they are where something of the page lies there."""
    named = [str(path) for path in (program, page.home, page.archive, page.token_file) if path is not None]
    if any(path.startswith(("/tmp/", "/var/tmp/")) for path in (*named, *page.arguments)):  # noqa: S108
        return ["ReadWritePaths=/tmp /var/tmp"]
    return []


def _homes(page: PageService, program: Path) -> str:
    """Hide home directories unless something lies there; an archive there must stay writable."""
    found = protect_home(program, "".join(f'"{argument}"' for argument in page.arguments))
    written = any(str(path).startswith(("/home", "/root")) for path in (page.archive, page.home) if path is not None)
    return "no" if written else found
