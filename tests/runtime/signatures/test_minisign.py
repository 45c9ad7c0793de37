"""minisign's formats, held to the standard tool in both directions.

Covers: runtime/signatures/secret_key.py.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.runtime.errors import SignatureError, UsageError
from overflight.runtime.signatures import minisign
from overflight.runtime.signatures.minisign import PublicKey, Signature
from overflight.runtime.signatures.secret_key import SecretKey, _scrypt_cost, save_pair

needs_tool = pytest.mark.skipif(shutil.which("minisign") is None, reason="needs Debian's minisign")


def tool(*arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["minisign", *map(str, arguments)], input=typed, capture_output=True, text=True, check=False, timeout=60
    )


@needs_tool
def test_the_standard_tool_verifies_our_signatures(tmp_path: Path) -> None:
    """A signature of ours is good for minisign -V, and bad once a byte of the file or of the comment changes."""
    key = SecretKey.make()
    public = save_pair(key, tmp_path / "k.key", None)
    (tmp_path / "bank").write_bytes(b"some bank")
    signature = tmp_path / "bank.minisig"
    signature.write_text(key.sign(b"some bank", "counter:7\ttarget:*").encode())
    done = tool("-V", "-p", public, "-m", tmp_path / "bank")
    assert (done.returncode, "Trusted comment: counter:7\ttarget:*" in done.stdout) == (0, True), done
    signature.write_text(signature.read_text().replace("counter:7", "counter:8"))
    assert tool("-V", "-p", public, "-m", tmp_path / "bank").returncode != 0


@needs_tool
@pytest.mark.parametrize("form", [["-l"], ["-H"]], ids=["legacy Ed", "prehashed ED"])
def test_we_verify_the_standard_tools_signatures(tmp_path: Path, form: list[str]) -> None:
    """Both forms are read, the comment as signed; a changed file, comment or signature is refused."""
    tool("-G", "-W", "-p", tmp_path / "k.pub", "-s", tmp_path / "k.key")
    (tmp_path / "bank").write_bytes(b"some bank")
    assert tool("-S", *form, "-s", tmp_path / "k.key", "-m", tmp_path / "bank", "-t", "höhe:7").returncode == 0
    key = PublicKey.parse((tmp_path / "k.pub").read_text(), source="k.pub")
    text = (tmp_path / "bank.minisig").read_text()
    signature = Signature.parse(text, source="bank")
    assert (signature.comment, signature.prehashed) == ("höhe:7", form == ["-H"])
    minisign.verify(key, signature, b"some bank", source="bank")
    assert Signature.parse(text.replace("\n", "\r\n"), source="bank") == signature
    with pytest.raises(SignatureError, match="changed after signing"):
        minisign.verify(key, signature, b"some bonk", source="bank")
    forged = Signature.parse(text.replace("höhe:7", "höhe:8"), source="bank")
    with pytest.raises(SignatureError, match="trusted comment does not match"):
        minisign.verify(key, forged, b"some bank", source="bank")


@needs_tool
def test_secret_keys_work_in_both_tools(tmp_path: Path) -> None:
    """The tool signs with an encrypted key of ours; we sign with an unencrypted one of the tool's."""
    ours = SecretKey.make()
    public = save_pair(ours, tmp_path / "ours.key", "correct horse")
    (tmp_path / "f").write_bytes(b"content")
    done = tool("-S", "-s", tmp_path / "ours.key", "-m", tmp_path / "f", typed="correct horse\n")
    assert done.returncode == 0, done.stderr
    assert tool("-V", "-p", public, "-m", tmp_path / "f").returncode == 0
    tool("-G", "-W", "-p", tmp_path / "k.pub", "-s", tmp_path / "k.key")
    theirs = SecretKey.load(tmp_path / "k.key", lambda: pytest.fail("asked for a password"))
    (tmp_path / "f.minisig").write_text(theirs.sign(b"content", "counter:1").encode())
    assert tool("-V", "-p", tmp_path / "k.pub", "-m", tmp_path / "f").returncode == 0


@needs_tool
@pytest.mark.slow
def test_an_encrypted_key_of_the_tool_opens(tmp_path: Path) -> None:
    """minisign derives with 1 GiB of memory; the same password opens it here."""
    tool("-G", "-p", tmp_path / "k.pub", "-s", tmp_path / "k.key", typed="pw\npw\n")
    key = SecretKey.load(tmp_path / "k.key", lambda: "pw")
    assert key.public == PublicKey.parse((tmp_path / "k.pub").read_text(), source="k.pub")


def test_scrypt_costs_are_libsodiums() -> None:
    """Interactive, the tool's own, and our limits give the parameters that libsodium documents."""
    assert _scrypt_cost(524288, 16777216) == (1 << 14, 1)
    assert _scrypt_cost(33554432, 1073741824) == (1 << 20, 1)
    assert _scrypt_cost(1 << 22, 1 << 27) == (1 << 17, 1)


def test_a_secret_key_is_kept_to_its_owner(tmp_path: Path) -> None:
    """Mode 0600, never overwritten, refused with a wrong password or when others can read it."""
    key = SecretKey.make()
    save_pair(key, tmp_path / "k.key", "pw")
    assert (tmp_path / "k.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="already exists"):
        save_pair(key, tmp_path / "k.key", "pw")
    with pytest.raises(SignatureError, match="wrong password"):
        SecretKey.load(tmp_path / "k.key", lambda: "PW")
    assert SecretKey.load(tmp_path / "k.key", lambda: "pw") == key
    (tmp_path / "k.key").chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        SecretKey.load(tmp_path / "k.key", lambda: "pw")


def test_a_key_file_cannot_ask_for_endless_memory(tmp_path: Path) -> None:
    """A changed memory limit is refused before anything is derived."""
    lines = SecretKey.make().encode("pw").splitlines()
    raw = bytearray(base64.b64decode(lines[1]))
    raw[46:54] = (1 << 40).to_bytes(8, "little")
    path = tmp_path / "k.key"
    path.write_text(f"{lines[0]}\n{base64.b64encode(raw).decode()}\n")
    path.chmod(0o600)
    with pytest.raises(SignatureError, match="expected 1 to 1024 MiB"):
        SecretKey.load(path, lambda: "pw")


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=6000), st.binary(max_size=400).map(lambda raw: base64.b64encode(raw).decode())))
def test_any_text_is_a_key_a_signature_or_an_error(text: str) -> None:
    """Nothing but SignatureError comes out of the parsers."""
    made = SecretKey.make().sign(b"", "counter:1").encode()
    lines = made.split("\n")
    for candidate in (text, "\n".join([*lines[:1], text, *lines[2:]]), made.replace("counter:1", text)):
        for parse in (PublicKey.parse, Signature.parse):
            read: Any = parse
            try:
                read(candidate, source="x")
            except SignatureError:
                continue
