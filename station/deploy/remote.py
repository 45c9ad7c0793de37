"""Remote: a machine reached over ssh, which receives a bundle or a bank and then updates itself."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from overflight.runtime.bundle import MANIFEST, SIGNATURE
from overflight.runtime.errors import MissingError, OverflightError, UsageError
from overflight.runtime.json_input import decode_json
from overflight.runtime.signatures.signature_files import signature_path

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle

_LOST = 255  # ssh's own exit code
_NOT_FOUND = 127
_Answer = TypeVar("_Answer")


class Prepared(msgspec.Struct, frozen=True):
    """A machine ready to receive: where, as which user if not the one that logs in, and what it has already."""

    incoming: str
    as_user: str | None
    has_bundle: bool
    has_rsync: bool
    version: str


@dataclass(frozen=True)
class Host:
    """A machine by its ssh name. ``ssh`` and ``program`` are command lines: how it is reached, what runs there."""

    name: str
    ssh: str = "ssh"
    program: str = "overflight"

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("-") or any(sign.isspace() for sign in self.name):
            raise UsageError(f"{self.name!r}: expected a host as ssh takes it, such as pilot@survey-7")
        if shutil.which(self._ssh[0]) is None:
            raise MissingError(f"no {self._ssh[0]} here; run: sudo apt install openssh-client")

    def update(self, answer: type[_Answer], *arguments: str) -> _Answer:
        """Run ``overflight update`` there; its progress goes to standard error. Raises what it failed with."""
        command = shlex.join([*shlex.split(self.program), "update", "--json", *arguments])
        done = self._run(command)
        try:
            return decode_json(done.strip().splitlines()[-1] if done.strip() else b"", answer)
        except msgspec.DecodeError as error:
            raise OverflightError(
                f"{self.name}: answered {done[:100]!r}, expected JSON; install the same version of overflight there"
            ) from error

    def upload_bundle(self, bundle: Bundle, prepared: Prepared) -> str:
        """Copy a bundle's files over; an interrupted copy resumes where there is rsync. Returns the folder there."""
        names = [MANIFEST, *(() if prepared.has_bundle else bundle.manifest.files)]
        if (bundle.directory / SIGNATURE).exists():
            names.insert(0, SIGNATURE)
        folder = f"{prepared.incoming}/{bundle.sha256[:16]}"
        self._run(_as(prepared, ["mkdir", "-p", folder]))
        listed = "".join(f"{name}\n" for name in names).encode()
        if prepared.has_rsync and shutil.which("rsync"):
            self._rsync(bundle.directory, folder, listed, prepared)
        else:
            self._tar(bundle.directory, folder, names, prepared)
        return folder

    def upload_bank(self, file: Path, bank: LabelBank, prepared: Prepared) -> str:
        """Copy a bank and its signature over; returns the file there."""
        place = f"{prepared.incoming}/{bank.sha256[:16]}.safetensors"
        if signature_path(file).exists():
            self._write(f"{place}.minisig", signature_path(file).read_bytes(), prepared)
        self._write(place, file.read_bytes(), prepared)
        return place

    @property
    def _ssh(self) -> list[str]:
        options = ["-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
        if not sys.stdin.isatty():
            options += ["-o", "BatchMode=yes"]  # nobody can type a password
        first, *more = shlex.split(self.ssh) or ["ssh"]
        return [first, *more, *options]

    def _write(self, place: str, content: bytes, prepared: Prepared) -> None:
        self._run(_as(prepared, ["sh", "-c", f"cat > {shlex.quote(place)}"]), content)

    def _run(self, command: str, content: bytes | None = None) -> bytes:
        """Run a command there and return its standard output. Raises by its exit code."""
        arguments = [*self._ssh, self.name, command]
        with subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if content is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            said = _Relay(process, content)
            output = said.finish()
        if process.returncode:
            raise self._error(process.returncode, said.last)
        return output

    def _rsync(self, source: Path, folder: str, listed: bytes, prepared: Prepared) -> None:
        command = ["rsync", "-rt", "-s", "--partial", "--files-from=-", "-e", shlex.join(self._ssh)]
        if prepared.as_user is not None:
            command.append(f"--rsync-path={shlex.join(['runuser', '-u', prepared.as_user, '--', 'rsync'])}")
        if sys.stderr.isatty():
            command += ["--info=progress2", "--no-inc-recursive"]
        done = subprocess.run(
            [*command, f"{source}/", f"{self.name}:{folder}/"],
            input=listed, stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,
            stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            full = next((line for line in lines if "No space left" in line), None)
            if full is not None:
                self._run(_as(prepared, ["rm", "-rf", folder]))
                raise OverflightError(f"{self.name}: {full}; what was copied is deleted again, free the disk there")
            what = next((line for line in lines if line.startswith("rsync")), lines[-1] if lines else "")
            raise OverflightError(f"{self.name}: copying ended early ({what}); deploy again, it resumes")

    def _tar(self, source: Path, folder: str, names: list[str], prepared: Prepared) -> None:
        pack = subprocess.Popen(["tar", "-C", str(source), "-cf", "-", "--", *names], stdout=subprocess.PIPE)
        with pack:
            unpack = _as(prepared, ["tar", "-C", folder, "-xf", "-"])
            done = subprocess.run([*self._ssh, self.name, unpack], stdin=pack.stdout, capture_output=True, check=False)
        if done.returncode or pack.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["tar failed"]
            if done.returncode != _LOST:
                self._run(_as(prepared, ["rm", "-rf", folder]))
            raise self._error(done.returncode or 1, lines[-1])

    def _error(self, code: int, said: str) -> OverflightError:
        if code == _LOST:
            return OverflightError(
                f"{self.name}: the connection failed ({said}); if an update was under way there, it ends by itself: "
                f"see overflight deploy --history {self.name}"
            )
        if code == _NOT_FOUND:
            return MissingError(f"{self.name}: {said}; install overflight there, or name it with --program")
        return {2: UsageError, 3: MissingError}.get(code, OverflightError)(
            f"{self.name}: {said.removeprefix('overflight: ') or f'exit code {code}'}"
        )


class _Relay:
    """Passes what a process says on standard error on, line by line, and keeps the last line."""

    def __init__(self, process: subprocess.Popen[bytes], content: bytes | None) -> None:
        self.last = ""
        self._process = process
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()
        if content is not None and process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.write(content)
                process.stdin.close()

    def finish(self) -> bytes:
        assert self._process.stdout is not None
        output = self._process.stdout.read()
        self._process.wait()
        self._thread.join()
        return output

    def _relay(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            if not line:
                continue
            if self.last:
                print(self.last, file=sys.stderr, flush=True)
            self.last = line  # the last line is the error, which is raised instead


def _as(prepared: Prepared, command: list[str]) -> str:
    prefix = [] if prepared.as_user is None else ["runuser", "-u", prepared.as_user, "--"]
    return shlex.join([*prefix, *command])
