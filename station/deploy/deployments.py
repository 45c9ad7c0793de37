"""The deployments on this machine: what was deployed, what is in use, and the way back.

``$OVERFLIGHT_HOME/deployments/`` holds::

    bundles/<hash>/            the bundles, by the hash of their manifest
    banks/<hash>.safetensors   the label banks, with their signatures
    0007/bundle, bank.safetensors, deployment.json    one deployment: links to a bundle and a bank
    current -> 0007            what the service uses; one rename switches both
    trial                      a deployment that has not proven itself yet, and the one before it
    history.jsonl              what was done, when and by whom
"""

from __future__ import annotations

import getpass
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.durable import sync_directory, write_atomically
from overflight.runtime.errors import MissingError, OverflightError
from overflight.runtime.json_input import decode_json
from overflight.runtime.locks import lock_file
from overflight.runtime.signatures.signature_files import signature_path
from overflight.runtime.signatures.trust import Accepted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle

RECORD = "deployment.json"
KEEP = 5


class Deployment(msgspec.Struct, frozen=True):
    """One deployment: a bundle with a bank, by their hashes and names, and the counters of their signatures."""

    number: int
    bundle: str
    bundle_name: str
    bank: str
    bank_name: str
    made_utc_s: float
    accepted: dict[str, Accepted] = {}

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.number:04d}"

    @property
    def title(self) -> str:
        """The deployment for people."""
        return f"{self.folder} ({self.bundle_name} {self.bundle[:8]}, {self.bank_name} {self.bank[:8]})"


class Action(msgspec.Struct, frozen=True):
    """A line of the history: ``deployed``, ``failed`` (and switched back) or ``rolled back``."""

    utc_s: float
    action: str
    deployment: Deployment
    by: str
    reason: str = ""


class Trial(msgspec.Struct, frozen=True):
    """A deployment in use that has not proven itself, and the number of the one before it, if any."""

    deployment: int
    previous: int | None


@dataclass(frozen=True)
class Deployments:
    """The deployments below a home folder."""

    home: Path

    @property
    def path(self) -> Path:
        """Their folder."""
        return self.home / "deployments"

    @property
    def incoming(self) -> Path:
        """Where uploads and downloads are staged until they are verified."""
        return self.path / "incoming"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the deployments for one update. Raises OverflightError where another one runs."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise MissingError(
                f"{self.path}: {error.strerror}; name a folder that can be written with --home, or use sudo"
            ) from error
        with file:
            try:
                lock_file(file.fileno(), wait=False)
            except BlockingIOError as error:
                raise OverflightError(f"{self.path}: another update is running; wait for it to end") from error
            yield

    def all(self) -> list[Deployment]:
        """Return every complete deployment, oldest first."""
        found = []
        for record in sorted(self.path.glob(f"[0-9]*/{RECORD}")):
            try:
                found.append(decode_json(record.read_bytes(), Deployment))
            except (OSError, msgspec.DecodeError):
                continue
        return found

    def current(self) -> Deployment | None:
        """Return the deployment in use, or None."""
        try:
            name = (self.path / "current").readlink().name
        except OSError:
            return None
        return next((one for one in self.all() if one.folder == name), None)

    def before(self, deployment: Deployment | None) -> Deployment | None:
        """Return the deployment that was in use before another one, by the history; None where there is none."""
        used = [action.deployment.number for action in self.history() if action.action != "failed"]
        known = {one.number: one for one in self.all()}
        for number in reversed(used):
            if number in known and (deployment is None or number < deployment.number):
                return known[number]
        return None

    def bundle_path(self, sha256: str) -> Path:
        """Return where a bundle lies."""
        return self.path / "bundles" / sha256[:16]

    def bank_path(self, sha256: str) -> Path:
        """Return where a bank lies."""
        return self.path / "banks" / f"{sha256[:16]}.safetensors"

    def add(self, bundle: Bundle, bank: LabelBank, bank_file: Path) -> Deployment:
        """Add a deployment of a bundle and a bank that lie below ``deployments/``; nothing is switched yet."""
        number = max((one.number for one in self.all()), default=0) + 1
        names = bundle.manifest.name, bank.header.name
        approvals = [one for one in (bundle.approval, bank.approval) if one is not None]
        accepted = {one.series: Accepted(one.terms.counter, one.sha256) for one in approvals}
        made = Deployment(number, bundle.sha256, names[0], bank.sha256, names[1], time.time(), accepted)
        partial = self.path / f".{made.folder}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _link(partial / "bundle", self.bundle_path(bundle.sha256))
        _link(partial / "bank.safetensors", bank_file)
        if signature_path(bank_file).exists():
            _link(partial / "bank.safetensors.minisig", signature_path(bank_file))
        write_atomically(partial / RECORD, msgspec.json.encode(made))
        sync_directory(partial)
        partial.rename(self.path / made.folder)
        sync_directory(self.path)
        return made

    def switch(self, deployment: Deployment | None) -> None:
        """Make a deployment the current one, in one step; None takes the last one out of use."""
        current = self.path / "current"
        if deployment is None:
            current.unlink(missing_ok=True)
        else:
            new = self.path / f".current.{os.getpid()}"
            new.unlink(missing_ok=True)
            new.symlink_to(deployment.folder)
            new.replace(current)
        sync_directory(self.path)

    def begin_trial(self, deployment: Deployment, previous: Deployment | None) -> None:
        """Note that what is switched to next must prove itself."""
        trial = Trial(deployment.number, None if previous is None else previous.number)
        write_atomically(self.path / "trial", msgspec.json.encode(trial))
        sync_directory(self.path)

    def end_trial(self) -> None:
        """Note that the current deployment needs no proof any more."""
        (self.path / "trial").unlink(missing_ok=True)
        sync_directory(self.path)

    def trial(self) -> tuple[Deployment | None, Deployment | None] | None:
        """Return the deployment on trial and the one before it, or None where none is on trial."""
        try:
            noted = decode_json((self.path / "trial").read_bytes(), Trial)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError):
            return self.current(), self.before(self.current())
        known = {one.number: one for one in self.all()}
        return known.get(noted.deployment), None if noted.previous is None else known.get(noted.previous)

    def record(self, action: str, deployment: Deployment, reason: str = "") -> None:
        """Add a line to the history."""
        line = msgspec.json.encode(Action(time.time(), action, deployment, _who(), reason)) + b"\n"
        with (self.path / "history.jsonl").open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[Action]:
        """Return what was done, oldest first; lines that cannot be read are skipped."""
        try:
            lines = (self.path / "history.jsonl").read_bytes().splitlines()
        except OSError:
            return []
        actions = []
        for line in lines:
            try:
                actions.append(decode_json(line, Action))
            except msgspec.DecodeError:
                continue
        return actions

    def prune(self, keep: int = KEEP) -> None:
        """Delete all but the newest deployments, and the bundles, banks and engines that none of the others needs.

        Those that failed do not count: several in a row would leave nothing to go back to.
        """
        used = {action.deployment.number for action in self.history() if action.action != "failed"}
        kept = [one for one in self.all() if one.number in used or not used][-keep:]
        current = self.current()
        if current is not None and current not in kept:
            kept.append(current)
        for one in self.all():
            if one not in kept:
                shutil.rmtree(self.path / one.folder, ignore_errors=True)
        bundles = {one.bundle[:16] for one in kept}
        for folder in (self.path / "bundles").glob("*"):
            if folder.name not in bundles:
                shutil.rmtree(folder, ignore_errors=True)
                shutil.rmtree(self.home / "engines" / folder.name, ignore_errors=True)
        banks = {one.bank[:16] for one in kept}
        for file in (self.path / "banks").glob("*"):
            if file.name.partition(".")[0] not in banks:
                file.unlink(missing_ok=True)


def _link(link: Path, target: Path) -> None:
    link.symlink_to(Path("..") / os.path.relpath(target, link.parent.parent))


def _who() -> str:
    """Return who does this: the user before sudo, and where an ssh connection comes from."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    remote = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    return f"{user}@{remote}" if remote else user
