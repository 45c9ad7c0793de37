"""Trusted keys: what a machine that trusts one refuses, and why."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from overflight.runtime.errors import MissingError, SignatureError, UsageError
from overflight.runtime.signatures import verify_signed
from overflight.runtime.signatures.secret_key import SecretKey
from overflight.runtime.signatures.terms import Terms
from overflight.runtime.signatures.trust import (
    Accepted,
    Approval,
    TrustedKeys,
    check_private,
    put_back,
    trust_key,
    trusted_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = b"a bank"


def signed(ground: Any, content: bytes = CONTENT, **terms: Any) -> str:
    signature: str = ground.key.sign(content, Terms.make(**terms).comment("bank")).encode()
    return signature


def approve(content: bytes, signature: str | None) -> Approval:
    approval = verify_signed(content, signature, kind="bank", source="the bank")
    assert approval is not None
    return approval


def test_without_a_key_nothing_is_asked(ground: Any) -> None:
    """No trusted key: unsigned and even wrongly signed content passes, as before."""
    assert verify_signed(CONTENT, None, kind="bank", source="x") is None
    assert verify_signed(CONTENT, "rubbish", kind="bank", source="x") is None


def test_a_trusted_signature_is_approved(ground: Any, aircraft: Path) -> None:
    """With the key's name, and the default series of its kind."""
    approval = approve(CONTENT, signed(ground, counter=3))
    assert (approval.key, approval.series, approval.terms.counter) == (ground.key.public.name, "bank", 3)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda ground: None, "not signed, and this machine trusts only key"),
        (lambda ground: "", "not a minisign signature"),
        (lambda ground: signed(ground, b"another"), "changed after signing"),
        (lambda ground: SecretKey.make().sign(CONTENT, "counter:1").encode(), "trusts only key"),
        (lambda ground: signed(ground, target="elsewhere"), "signed for elsewhere"),
        (lambda ground: signed(ground).replace("target:*", "target:?"), "trusted comment does not match"),
        (lambda ground: signed(ground, expires="0h"), "expired at"),
        (lambda ground: ground.key.sign(CONTENT, "hello").encode(), "neither counter nor timestamp"),
    ],
    ids=["unsigned", "empty", "altered", "stranger", "target", "forged comment", "expired", "no counter"],
)
def test_what_is_refused(ground: Any, aircraft: Path, make: Callable[[Any], str | None], why: str) -> None:
    """Each refusal says what was got and what to do."""
    with pytest.raises(SignatureError, match=why):
        approve(CONTENT, make(ground))


def test_a_stranger_with_our_key_identity_is_refused(ground: Any, aircraft: Path) -> None:
    """The 8 bytes of identity can be copied; the key behind them cannot."""
    stranger = SecretKey.make()
    posing = SecretKey(ground.key.id, stranger.seed, stranger.raw_public)
    with pytest.raises(SignatureError, match="does not match its signature"):
        approve(CONTENT, posing.sign(CONTENT, "counter:9").encode())


def test_an_older_copy_cannot_be_replayed(ground: Any, aircraft: Path) -> None:
    """Once counter 5 was accepted, 4 is refused and 5 is only good for the same content; a series counts by itself."""
    old, new = signed(ground, b"old", counter=4), signed(ground, b"new", counter=5)
    approve(b"old", old).accept()
    approve(b"new", new).accept()
    approve(b"new", new).accept()
    with pytest.raises(SignatureError, match="counter 4, lower than 5"):
        approve(b"old", old)
    with pytest.raises(SignatureError, match="the same as that of other content"):
        approve(b"other", signed(ground, b"other", counter=5))
    approve(b"night", signed(ground, b"night", counter=1, series="night")).accept()
    approval = TrustedKeys.load().approve(b"old", signed(ground, b"old", counter=4), series="bundle", source="x")
    assert approval is not None


def test_checking_does_not_use_up_a_counter(ground: Any, aircraft: Path) -> None:
    """Only what is put into use raises the counter; of two that race, the older loses at the end too."""
    old, new = (
        approve(b"old", signed(ground, b"old", counter=4)),
        approve(b"new", signed(ground, b"new", counter=5)),
    )
    assert not (aircraft / "accepted.json").exists()
    new.accept()
    with pytest.raises(SignatureError, match="lower than 5"):
        old.accept()
    put_back({"bank": Accepted(4, old.sha256)}, aircraft / "accepted.json")
    approve(b"old", signed(ground, b"old", counter=4))


def test_what_was_accepted_outlives_its_expiry(ground: Any, aircraft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A date does not ground an aircraft, but nothing new is taken after it."""
    signature, other = signed(ground, counter=1, expires="1h"), signed(ground, b"other", counter=2, expires="1h")
    approve(CONTENT, signature).accept()
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    approve(CONTENT, signature)
    with pytest.raises(SignatureError, match="expired"):
        approve(b"other", other)


def test_a_group_name_is_a_target(ground: Any, aircraft: Path) -> None:
    """Groups are listed next to the trusted keys."""
    signature = signed(ground, target="survey")
    with pytest.raises(SignatureError, match="signed for survey"):
        approve(CONTENT, signature)
    (trusted_folder() / "targets").write_text("night survey\n")
    approve(CONTENT, signature)


def test_a_damaged_record_refuses_rather_than_forgets(ground: Any, aircraft: Path) -> None:
    """Without the counters an old copy could be replayed."""
    aircraft.mkdir(exist_ok=True)
    (aircraft / "accepted.json").write_text("{")
    with pytest.raises(SignatureError, match="Restore it"):
        approve(CONTENT, signed(ground))


def test_a_record_that_cannot_be_kept_is_an_error(ground: Any, aircraft: Path) -> None:
    """What is put into use must be remembered."""
    approval = approve(CONTENT, signed(ground))
    aircraft.write_text("a file in the way")
    with pytest.raises(MissingError, match="OVERFLIGHT_HOME"):
        approval.accept()


@pytest.mark.parametrize("spoil", ["mode", "content", "folder"])
def test_keys_that_others_can_change_are_no_keys(ground: Any, aircraft: Path, spoil: str) -> None:
    """A world-writable key or folder, or a broken key file, refuses everything; it does not open the door."""
    (key,) = trusted_folder().glob("*.pub")
    if spoil == "mode":
        key.chmod(0o646)
    elif spoil == "folder":
        key.parent.chmod(0o777)
    else:
        key.write_text("untrusted comment: x\nAAAA\n")
    with pytest.raises(SignatureError, match=r"others can change it|not a minisign public key"):
        approve(CONTENT, signed(ground))


def test_two_keys_may_be_trusted(ground: Any, aircraft: Path, tmp_path: Path) -> None:
    """For a change of keys: both sign, counters go on across them."""
    second = SecretKey.make()
    (tmp_path / "second.pub").write_text(second.public.encode())
    trust_key(tmp_path / "second.pub")
    approve(CONTENT, signed(ground, counter=5)).accept()
    approve(b"new", second.sign(b"new", "counter:6\ttarget:*").encode()).accept()
    with pytest.raises(SignatureError, match="lower than 6"):
        approve(CONTENT, signed(ground, counter=5))


def test_a_secret_key_is_not_trusted(ground: Any, tmp_path: Path) -> None:
    """Copying the wrong file of the pair is said, and the secret never lands on the aircraft."""
    secret = tmp_path / "k.key"
    secret.write_text(ground.key.encode(None))
    with pytest.raises(SignatureError, match="not a minisign public key"):
        trust_key(secret)
    with pytest.raises(UsageError, match="no such file"):
        trust_key(tmp_path / "none.pub")


def test_an_engine_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """The file and every folder up to the store must belong to us or to root."""
    entry = tmp_path / "engines" / "bundle" / "entry"
    entry.mkdir(parents=True)
    engine = entry / "model.engine"
    engine.write_bytes(b"")
    check_private(engine, tmp_path / "engines")
    entry.chmod(0o777)
    with pytest.raises(SignatureError, match="others can change it"):
        check_private(engine, tmp_path / "engines")
    entry.chmod(0o755)
    engine.chmod(0o666)
    with pytest.raises(SignatureError, match="others can change it"):
        check_private(engine, tmp_path / "engines")
    engine.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(engine, 12345, 12345)
        with pytest.raises(SignatureError, match="owned by user 12345"):
            check_private(engine, tmp_path / "engines")


def test_a_bundle_is_signed_by_its_manifest(ground: Any, aircraft: Path, colour_bundle: Any, tmp_path: Path) -> None:
    """Unsigned refused, signed opened, changed refused; a new manifest must be signed again."""
    from overflight.runtime.bundle import Bundle, seal

    copy = tmp_path / "copy"
    shutil.copytree(colour_bundle.directory, copy)
    with pytest.raises(SignatureError, match="not signed"):
        Bundle.open(copy)
    ground.sign(copy)
    opened = Bundle.open(copy)
    assert opened.approval is not None
    opened.verify()
    manifest = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(manifest.replace(b"mean-colour", b"main-colour"))
    with pytest.raises(SignatureError, match="changed after signing"):
        Bundle.open(copy)
    (copy / "manifest.json").write_bytes(manifest)
    sealed = seal(copy, msgspec.structs.replace(opened.manifest, name="calibrated"))
    assert "manifest.json.minisig" not in sealed.manifest.files
    with pytest.raises(SignatureError, match="not signed"):
        Bundle.open(copy)
