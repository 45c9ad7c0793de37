"""Updating: this machine takes a bundle and a bank, proves them, switches in one step, and goes back where it must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from overflight.runtime.bank import open_bank
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.links.tls import NO_FILES
from overflight.runtime.signatures.trust import TrustedKeys, put_back
from overflight.station.deploy.deployments import Deployment, Deployments
from overflight.station.deploy.fetch import Web
from overflight.station.deploy.running import Running
from overflight.station.deploy.staging import stage_bank, stage_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overflight.runtime.bank import LabelBank

BUILD_S = 3600.0
WATCHED_S = 5.0  # a flight that watches its bank looks twice a second


class Outcome(msgspec.Struct, frozen=True):
    """What an update did: ``deployed``, ``unchanged``, ``rolled back``, and which deployment is in use now."""

    action: str
    deployment: Deployment
    previous: Deployment | None
    proof: str = ""
    restarted: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """How this machine is updated. ``within_s`` is what the flight gets to become fresh before it is switched back."""

    home: Path
    running: Running = field(default_factory=Running)
    web: Web = field(default_factory=lambda: Web(NO_FILES))
    within_s: float = 120.0
    build: bool = True
    force: bool = False
    report: Callable[[str], None] = lambda text: None

    @property
    def deployments(self) -> Deployments:
        """The deployments of this machine."""
        return Deployments(self.home)

    def take(self, bundle: str | None, bank: str | None) -> Outcome:
        """Deploy a bundle, a bank, or both, each a path or a URL.

        Raises SignatureError, BundleError, BankError for what is refused, and OverflightError where it was switched
        back because the flight did not become fresh.
        """
        with self.deployments.lock():
            self._resume()
            current = self.deployments.current()
            staged, place, staged_bank, notes = self._stage(bundle, bank, current)
            if current is not None and (staged.sha256, staged_bank.sha256) == (current.bundle, current.bank):
                return Outcome("unchanged", current, self.deployments.before(current), notes=notes)
            self._refuse_in_flight()
            if current is None or staged.sha256 != current.bundle:
                notes += self._build(staged)
            proof = self._prove(staged, place)
            self._refuse_in_flight()
            made = self.deployments.add(staged, staged_bank, place)
            bank_only = current is not None and staged.sha256 == current.bundle
            restarted = self._try("deployed", made, current, bank_only=bank_only)
            self.deployments.prune()
            return Outcome("deployed", made, current, proof, restarted, notes)

    def roll_back(self) -> Outcome:
        """Go back to the deployment before the current one. Raises UsageError where there is none."""
        with self.deployments.lock():
            self._resume()
            current = self.deployments.current()
            previous = self.deployments.before(current)
            if current is None or previous is None:
                raise UsageError(
                    f"{self.deployments.path}: no deployment before this one; see: overflight update --history"
                )
            self._refuse_in_flight()
            restarted = self._try("rolled back", previous, current, bank_only=current.bundle == previous.bundle)
            return Outcome("rolled back", previous, current, restarted=restarted)

    def resume(self) -> Outcome | None:
        """Undo a deployment whose update was interrupted before it had proven itself; None where all is well.

        While another update runs, the deployment on trial is its own affair.
        """
        if self.deployments.trial() is None:
            return None
        with suppress(OverflightError), self.deployments.lock():
            return self._resume()
        return None

    def _stage(
        self, bundle: str | None, bank: str | None, current: Deployment | None
    ) -> tuple[Bundle, Path, LabelBank, tuple[str, ...]]:
        deployments, incoming = self.deployments, self.deployments.incoming
        incoming.mkdir(parents=True, exist_ok=True)
        if bundle is not None:
            source = self.web.fetch_bundle(bundle, deployments, self.report) if "://" in bundle else Path(bundle)
            staged = stage_bundle(deployments, source)
        elif current is not None:
            staged = Bundle.open(deployments.bundle_path(current.bundle))
        else:
            raise UsageError("nothing is deployed yet; deploy a bundle first, with overflight deploy BUNDLE HOST")
        if bank is not None:
            file = self.web.fetch_bank(bank, incoming) if "://" in bank else Path(bank)
            staged_bank, place = stage_bank(deployments, file, staged)
            return staged, place, staged_bank, ()
        return self._keep_bank(staged, current)

    def _keep_bank(self, staged: Bundle, current: Deployment | None) -> tuple[Bundle, Path, LabelBank, tuple[str, ...]]:
        """Choose the bank that goes with a bundle that came alone: the one in use where it fits, else its own."""
        if current is not None:
            place = (self.deployments.path / current.folder / "bank.safetensors").resolve()
            with suppress(OverflightError):
                bank = open_bank(place, staged)
                bank.check_fits(staged.manifest)
                return staged, place, bank, (f"the bank in use, {bank.header.name}, is kept",)
        for name in sorted(staged.manifest.files):
            if name.startswith("labels/"):
                place = staged.file(name)
                bank = open_bank(place, staged)
                return staged, place, bank, (f"the bundle's own bank, {bank.header.name}, is used",)
        raise UsageError(f"{staged.manifest.name}: no bank fits this bundle; name one with --bank")

    def _refuse_in_flight(self) -> None:
        if not self.force:
            self.running.refuse_in_flight(self.home / "flights")

    def _build(self, staged: Bundle) -> tuple[str, ...]:
        """Build and check the engines of this device, in a process of its own; return what there is to say."""
        if not self.build:
            return ()
        if staged.manifest.calibrated is None:
            return ("no engine was built, because the bundle was never calibrated: the fp32 reference is used",)
        self.report("building and checking the engines of this device")
        self._run("overflight", "build", str(staged.directory), "--json")
        return ()

    def _prove(self, staged: Bundle, bank: Path) -> str:
        """Observe a few frames, in a process of its own; return what was used."""
        self.report("checking that it observes frames")
        said = self._run("overflight.station.deploy.prove", str(staged.directory), str(bank))
        return said.strip().splitlines()[-1] if said.strip() else ""

    def _run(self, module: str, *arguments: str) -> str:
        environment = os.environ | {"OVERFLIGHT_HOME": str(self.home)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                env=environment, capture_output=True, text=True, check=False, timeout=BUILD_S, user=os.geteuid(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise OverflightError(f"{module}: not done within {BUILD_S:g} s; nothing was switched") from error
        if done.returncode:
            what = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise OverflightError(f"not deployed, nothing was switched: {what.removeprefix('overflight: ')}")
        return done.stdout

    def _try(self, action: str, made: Deployment, current: Deployment | None, *, bank_only: bool) -> str:
        """Switch, restart and wait until the flight is fresh; else switch back. Raises OverflightError then."""
        deployments, running = self.deployments, self.running
        was_running = running.status() is not None
        os.sync()
        with _uninterrupted():
            deployments.begin_trial(made, current)
            try:
                deployments.switch(made)
                put_back(made.accepted, TrustedKeys.load(home=self.home).record)
                if bank_only and was_running and running.wait_for_bank(made, WATCHED_S):
                    restarted = "not needed, the flight took the new bank"
                else:
                    self.report(f"switched to deployment {made.title}")
                    restarted = running.apply(self.within_s)
                if restarted or was_running:
                    missing = running.wait_until_fresh(made, self.within_s)
                    if missing is not None:
                        raise OverflightError(f"the flight did not become fresh within {self.within_s:g} s: {missing}")
            except BaseException as error:
                reason = str(error) or type(error).__name__
                self._switch_back(made, current, reason)
                if isinstance(error, Exception):
                    raise OverflightError(f"{reason}; switched back to {_title(current)}") from error
                raise
            deployments.record(action, made)
            deployments.end_trial()
            return restarted

    def _switch_back(self, made: Deployment, previous: Deployment | None, reason: str) -> None:
        deployments = self.deployments
        self.report(f"{reason}; switching back to {_title(previous)}")
        deployments.switch(previous)
        if previous is not None:
            put_back(previous.accepted, TrustedKeys.load(home=self.home).record)
        deployments.record("failed", made, reason)
        deployments.end_trial()
        if previous is None:
            return
        with suppress(OverflightError):
            if self.running.apply(self.within_s):
                missing = self.running.wait_until_fresh(previous, self.within_s)
                if missing is not None:
                    self.report(f"deployment {previous.title} is not fresh either: {missing}")

    def _resume(self) -> Outcome | None:
        trial = self.deployments.trial()
        if trial is None:
            return None
        made, previous = trial
        self.deployments.switch(previous)
        if previous is not None:
            put_back(previous.accepted, TrustedKeys.load(home=self.home).record)
        reason = "the update was interrupted before the flight was fresh"
        if made is not None:
            self.deployments.record("failed", made, reason)
        self.deployments.end_trial()
        if made is None:
            return None
        self.report(f"deployment {made.title}: {reason}; switched back to {_title(previous)}")
        return Outcome("rolled back", previous or made, made, notes=(reason,))


def _title(deployment: Deployment | None) -> str:
    return "nothing, which was in use before" if deployment is None else f"deployment {deployment.title}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into an exception, so that a trial ends switched back, and outlive a lost connection."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")

    actions: dict[signal.Signals, Any] = {
        signal.SIGHUP: signal.SIG_IGN,
        signal.SIGPIPE: signal.SIG_IGN,
        signal.SIGTERM: end,
        signal.SIGINT: end,
    }
    before = {number: signal.signal(number, action) for number, action in actions.items()}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
