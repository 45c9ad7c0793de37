"""Trusted keys: once one lies on this machine, only content that it signed is used.

Keys are ``.pub`` files in ``/etc/overflight/trusted-keys``, or in ``$OVERFLIGHT_HOME/trusted-keys`` where the former
does not exist. The highest counter that was accepted is kept in ``$OVERFLIGHT_HOME/accepted.json``.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import MissingError, SignatureError, UsageError
from overflight.runtime.json_input import decode_json
from overflight.runtime.locks import lock_file
from overflight.runtime.paths import home as own_home
from overflight.runtime.signatures.minisign import MAX_TEXT, PublicKey, Signature, key_name, verify
from overflight.runtime.signatures.terms import Terms, machine_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_KEYS = Path("/etc/overflight/trusted-keys")
ACCEPTED = "accepted.json"
TARGETS = "targets"
_MOST_KEYS = 64
_HAS_OWNERS = hasattr(os, "geteuid")  # Windows has other rights, which are not checked


class Accepted(msgspec.Struct, frozen=True):
    """The newest content of a series that was put into use here."""

    counter: int
    sha256: str


@dataclass(frozen=True)
class Approval:
    """Content that a trusted key signed. ``accept`` records its counter once it is put into use."""

    series: str
    key: str
    terms: Terms
    sha256: str
    record: Path

    def accept(self) -> None:
        """Refuse whatever is older from now on.

        Raises SignatureError where other content was accepted meanwhile, MissingError where the disk takes no record.
        """
        with _record(self.record) as newest:
            _check_counter(newest.get(self.series), self.terms.counter, self.sha256, source=self.series)
            newest[self.series] = Accepted(self.terms.counter, self.sha256)


@dataclass(frozen=True)
class TrustedKeys:
    """The keys that this machine trusts, the names it answers to, and where accepted counters are kept."""

    keys: Mapping[bytes, PublicKey]
    names: frozenset[str]
    record: Path

    @classmethod
    def load(cls, folder: Path | None = None, home: Path | None = None) -> TrustedKeys:
        """Read the trusted keys; none where the folder does not exist. Raises SignatureError for one it cannot read.

        A key file that another user could have written is refused: trust would be theirs to give.
        """
        home = home or own_home()
        folder = folder or trusted_folder(home)
        if not folder.is_dir():
            return cls({}, frozenset(), home / ACCEPTED)
        _check_owner(folder)
        keys = {}
        for path in sorted(folder.glob("*.pub"))[:_MOST_KEYS]:
            _check_owner(path)
            key = PublicKey.parse(_read(path), source=str(path))
            keys[key.id] = key
        listed = folder / TARGETS
        groups = frozenset(_read(listed).split()) if listed.exists() else frozenset()
        return cls(keys, machine_names(groups), home / ACCEPTED)

    def approve(self, content: bytes, signature: str | None, *, series: str, source: str) -> Approval | None:
        """Check content against its signature; None where no key is trusted. Raises SignatureError.

        What was accepted before stays usable after its expiry: a date must not ground an aircraft.
        """
        if not self.keys:
            return None
        if signature is None:
            raise SignatureError(
                f"{source}: not signed, and this machine trusts only {self._shown()}; sign it with: overflight sign"
            )
        parsed = Signature.parse(signature, source=source)
        key = self.keys.get(parsed.key_id)
        if key is None:
            raise SignatureError(
                f"{source}: signed by key {key_name(parsed.key_id)}, this machine trusts only {self._shown()}; "
                "sign it with one of these, or trust the key with: overflight keys trust"
            )
        verify(key, parsed, content, source=source)
        terms = Terms.parse(parsed.comment, source=source)
        terms.check_target(self.names, source=source)
        approval = Approval(terms.series or series, key.name, terms, hashlib.sha256(content).hexdigest(), self.record)
        last = accepted(self.record).get(approval.series)
        _check_counter(last, terms.counter, approval.sha256, source=source)
        if last is None or last.sha256 != approval.sha256:
            terms.check_expiry(source=source)
        return approval

    def _shown(self) -> str:
        return ", ".join(f"key {key.name}" for key in self.keys.values())


def trusted_folder(home: Path | None = None) -> Path:
    """Return where this machine's trusted keys lie; ``$OVERFLIGHT_TRUSTED_KEYS`` names another folder."""
    named = os.environ.get("OVERFLIGHT_TRUSTED_KEYS")
    if named:
        return Path(named)
    return SYSTEM_KEYS if SYSTEM_KEYS.is_dir() else (home or own_home()) / "trusted-keys"


def trust_key(public: Path) -> tuple[PublicKey, Path]:
    """Copy a public key to the trusted ones; returns the key and its place. Raises UsageError, SignatureError."""
    if not public.is_file():
        raise UsageError(f"{public}: no such file; expected the .pub file of: overflight keys new")
    key = PublicKey.parse(_read(public), source=str(public))
    named = os.environ.get("OVERFLIGHT_TRUSTED_KEYS")
    system = _user() == 0 or SYSTEM_KEYS.is_dir()
    folder = Path(named) if named else SYSTEM_KEYS if system else trusted_folder()
    place = folder / f"{key.name}.pub"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_atomically(place, key.encode().encode())
        place.chmod(0o644)
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}; run it with sudo") from error
    return key, place


def put_back(before: Mapping[str, Accepted], record: Path) -> None:
    """Go back to counters that were accepted before: an operator's rollback to what was in use then."""
    with _record(record) as newest:
        newest.update(before)


def check_private(path: Path, root: Path) -> None:
    """Refuse a built engine that another user could have changed. ``root`` is the store's own folder.

    Owners may be root, this process's user, or the owner of ``root``. Raises SignatureError.
    """
    owners = {0, _user(), root.stat().st_uid}
    for part in (path, *path.parents):
        _check_owner(part, owners)
        if part == root:
            return


def _check_counter(last: Accepted | None, counter: int, sha256: str, *, source: str) -> None:
    if last is None or counter > last.counter or (counter == last.counter and sha256 == last.sha256):
        return
    older = "the same as that of other content" if counter == last.counter else f"lower than {last.counter}"
    raise SignatureError(
        f"{source}: signed with counter {counter}, {older} accepted here before; an old copy is refused, sign it again"
    )


def _check_owner(path: Path, owners: set[int] | None = None) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise SignatureError(f"{path}: {error.strerror}; it cannot be trusted") from error
    if not _HAS_OWNERS:
        return
    owners = owners or {0, _user()}
    others = status.st_mode & 0o002 or (status.st_mode & 0o020 and not _own_group(status.st_uid, status.st_gid))
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_uid not in owners or (others and not sticky):
        raise SignatureError(
            f"{path}: owned by user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}, so that others can "
            f"change it; run: sudo chown root {path} && sudo chmod go-w {path}"
        )


def _user() -> int:
    return os.geteuid() if _HAS_OWNERS else -1


def _own_group(user: int, group: int) -> bool:
    """Whether a group is the user's own and nobody else is in it: Ubuntu's default for every user."""
    import grp
    import pwd

    try:
        owner = pwd.getpwuid(user)
        members = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    return owner.pw_gid == group and members <= {owner.pw_name}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT).decode("utf-8", "replace")
    except OSError as error:
        raise SignatureError(f"{path}: {error.strerror}; it cannot be trusted") from error


def accepted(path: Path) -> dict[str, Accepted]:
    """Return what was accepted last in each series. Raises SignatureError where that cannot be read."""
    try:
        return decode_json(path.read_bytes(), type=dict[str, Accepted])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise SignatureError(
            f"{path}: {error}; without it an old copy could be replayed. Restore it, or delete it to start anew"
        ) from error


@contextmanager
def _record(path: Path) -> Iterator[dict[str, Accepted]]:
    """Give the accepted counters to change, one process at a time, and keep them on the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            lock_file(lock.fileno(), wait=True)
            before = accepted(path)
            newest = dict(before)
            yield newest
            if newest != before:
                write_atomically(path, msgspec.json.encode(newest))
    except OSError as error:
        raise MissingError(
            f"{path}: {error.strerror}; the counter of what is used must be kept, set OVERFLIGHT_HOME to a folder "
            "that can be written"
        ) from error
