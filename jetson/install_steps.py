"""What installing and removing a service does to a machine: one thing after another, each noted in words."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Steps:
    """Does one thing after another and notes each in words; in a dry run it only notes."""

    def __init__(self, dry_run: bool = False) -> None:
        self._dry_run = dry_run
        self.done: list[str] = []

    def write(self, path: Path, content: str, mode: int) -> None:
        """Write a file."""
        readers = "readable by root only" if mode == 0o600 else "readable by all"
        self._note(f"write {path} ({readers})", f"wrote {path} ({readers})")
        if not self._dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content, mode)

    def link(self, path: Path, to: Path) -> None:
        """Make the link that starts a service at boot."""
        if path.is_symlink() and path.readlink() == to:
            return
        self._note(f"link {path}, to start at boot", f"linked {path}, to start at boot")
        if not self._dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(to)

    def folder(self, path: Path) -> None:
        """Make a folder."""
        if not path.is_dir():
            self._note(f"make {path}", f"made {path}")
            if not self._dry_run:
                path.mkdir(parents=True, exist_ok=True)

    def own(self, path: Path, user: str) -> None:
        """Give a folder to a user."""
        self._note(f"give {path} to {user}", f"gave {path} to {user}")
        if not self._dry_run:
            shutil.chown(path, user)

    def delete(self, *paths: Path) -> None:
        """Delete what is there of some files and folders."""
        for path in paths:
            if path.exists() or path.is_symlink():
                self.done.append(f"deleted {path}")
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def delete_empty(self, *folders: Path) -> None:
        """Delete folders that are empty."""
        for folder in folders:
            if folder.is_dir() and not any(folder.iterdir()):
                self.done.append(f"deleted {folder}")
                folder.rmdir()

    def run(self, *command: str, needed: bool = True) -> None:
        """Run a program. Raises RuntimeError where one that is needed fails."""
        self._note(f"run {' '.join(command)}", f"ran {' '.join(command)}")
        if self._dry_run:
            return
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and needed:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")

    def _note(self, would: str, did: str) -> None:
        self.done.append(f"would {would}" if self._dry_run else did)


def _write(path: Path, content: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
