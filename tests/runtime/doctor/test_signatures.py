"""The doctor on signatures: trusted keys, a missing library, and a secret key in the wrong place."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from overflight.runtime.doctor import signatures
from overflight.runtime.doctor.signatures import check_signatures
from overflight.runtime.signatures.secret_key import SecretKey
from overflight.runtime.signatures.trust import trust_key

pytest.importorskip("cryptography")


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretKey:
    """Return a key that this machine trusts."""
    monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(tmp_path / "keys"))
    made = SecretKey.make()
    (tmp_path / "k.pub").write_text(made.public.encode())
    trust_key(tmp_path / "k.pub")
    return made


def test_without_keys_nothing_is_wrong(tmp_path: Path) -> None:
    """It says that nothing is checked."""
    check = check_signatures(tmp_path)
    assert (check.verdict, "without a signature" in check.found) == ("ok", True)


def test_trusted_keys_are_named(key: SecretKey, tmp_path: Path) -> None:
    """By the identity that minisign prints."""
    check = check_signatures(tmp_path)
    assert (check.verdict, key.public.name in check.found) == ("ok", True)


def test_a_missing_library_would_refuse_everything(
    key: SecretKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flight would fail, so this does."""
    find = importlib.util.find_spec
    monkeypatch.setattr(signatures, "find_spec", lambda name: None if name == "cryptography" else find(name))
    assert check_signatures(tmp_path).verdict == "fail"


def test_a_key_that_others_can_change_fails(key: SecretKey, tmp_path: Path) -> None:
    """With the command that repairs it."""
    (tmp_path / "keys" / f"{key.public.name}.pub").chmod(0o666)
    check = check_signatures(tmp_path)
    assert (check.verdict, str(check.cure).startswith("sudo chown root")) == ("fail", True)


def test_a_secret_key_on_board_is_found(key: SecretKey, tmp_path: Path) -> None:
    """It belongs on the ground."""
    (tmp_path / "survey.key").write_text(key.encode(None))
    check = check_signatures(tmp_path)
    assert (check.verdict, "survey.key" in check.found) == ("warn", True)
