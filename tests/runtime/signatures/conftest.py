"""A key pair, and a machine that trusts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from overflight.runtime.signatures.secret_key import SecretKey
from overflight.runtime.signatures.terms import Terms
from overflight.runtime.signatures.trust import trust_key
from overflight.runtime.signing import sign_path

pytest.importorskip("cryptography", reason="signatures need the signatures extra")


@dataclass(frozen=True)
class Ground:
    """The ground station: signs with a key of its own."""

    key: SecretKey
    folder: Path

    def sign(self, path: Path, **terms: object) -> str:
        """Sign a bundle or a bank and return the text of the signature."""
        return sign_path(path, self.key, Terms.make(**terms)).read_text()  # type: ignore[arg-type]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Return a ground station whose key nobody trusts yet."""
    return Ground(SecretKey.make(), tmp_path)


@pytest.fixture
def aircraft(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process an aircraft that trusts the ground station; returns its home."""
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(tmp_path / "keys"))
    (tmp_path / "ground.pub").write_text(ground.key.public.encode())
    trust_key(tmp_path / "ground.pub")
    return tmp_path / "home"
