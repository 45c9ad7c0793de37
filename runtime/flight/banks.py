"""New label banks in flight: a bank is proven, then kept on the disk, then used; else the one in use stays."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.bank import receive_bank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.errors import BankError, OverflightError
from overflight.runtime.log import say

if TYPE_CHECKING:
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.flight.directory import Flight
    from overflight.runtime.overflight import Overflight


class BankInUse(msgspec.Struct, frozen=True):
    """What ``GET /bank`` answers: the label bank that is matched now."""

    name: str
    sha256: str
    labels: tuple[str, ...]


class Banks:
    """Takes label banks in flight, from whatever thread. Before ``begin`` they are refused."""

    def __init__(self, overflight: Overflight) -> None:
        self._overflight = overflight
        self._flight: Flight | None = None
        self._taking = threading.Lock()

    def begin(self, flight: Flight) -> None:
        """Take banks from now on, and keep a copy of each with ``flight``."""
        self._flight = flight

    def use(self, bank: LabelBank) -> None:
        """Use a bank from the next frame on. Raises OverflightError; then nothing has changed."""
        with self._taking:
            if self._flight is None:
                raise OverflightError("the flight has not begun; send the bank again")
            bank.check_fits(self._overflight.bundle.manifest)
            prove(bank)
            self._flight.keep_bank(bank)
            bank.accept()
            self._overflight.use(bank)
        say("bank in use", bank=bank.header.name, sha256=bank.sha256, labels=len(bank))

    def describe(self) -> BankInUse:
        """Describe the bank that is matched now."""
        bank = self._overflight.bank
        return BankInUse(bank.header.name, bank.sha256, tuple(label.text for label in bank.header.labels))

    def take(self, raw: bytes) -> str:
        """Take the bytes of a bank and return its hash. Raises OverflightError."""
        bank = receive_bank(raw, source="the received bank")
        self.use(bank)
        return bank.sha256


def prove(bank: LabelBank) -> None:
    """Match and decide some made-up embeddings, as a frame would be. Raises BankError where that fails.

    The bank was validated when it was read; this proves the rest of the way, whatever validation may have missed.
    """
    width = bank.vectors.shape[1]
    random = np.random.default_rng(0).standard_normal((4, width)).astype(np.float32)
    probes = [*(random / np.linalg.norm(random, axis=1, keepdims=True)), bank.vectors[0], -bank.vectors[0]]
    try:
        matcher, decider = Matcher(bank), Decider(bank)
        for probe in probes:
            match = matcher.match(probe)
            decider.decide(match)
            if not np.isfinite(match.scores).all():
                raise BankError("a score is not finite")
    except Exception as error:
        raise BankError(
            f"{bank.header.name}: a trial with this bank failed ({type(error).__name__}: {error}); make the bank again"
        ) from error
