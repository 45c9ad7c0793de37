"""The doors of a machine that trusts a key: files, the watched folder, HTTP, MQTT, and the commands.

Covers: runtime/commands/keys.py, runtime/commands/sign.py, runtime/signing.py.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from overflight.cli import overflight as cli
from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bank import open_bank, receive_bank
from overflight.runtime.bundle import Bundle, seal
from overflight.runtime.errors import SignatureError
from overflight.runtime.flight.bank_watch import BankWatch
from overflight.runtime.flight.control_token import token_path
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.signatures.signature_files import split_signed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.runtime.records import Observation
    from overflight.runtime.stream import Stream

pytest.importorskip("onnxruntime")


@pytest.fixture
def bundle(ground: Any, aircraft: Path, colour_bundle: Bundle, tmp_path: Path) -> Bundle:
    """Return a signed bundle."""
    shutil.copytree(colour_bundle.directory, tmp_path / "bundle")
    ground.sign(tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture
def loaded(bundle: Bundle, ground: Any, colour_bank: LabelBank, tmp_path: Path) -> Iterator[Overflight]:
    """Return a signed bundle with a signed bank, loaded."""
    save(ground, colour_bank, tmp_path / "first.safetensors", counter=1)
    with Overflight.load(bundle, tmp_path / "first.safetensors") as overflight:
        yield overflight


def renamed(bank: LabelBank, name: str) -> LabelBank:
    return LabelBank.make(msgspec.structs.replace(bank.header, name=name), bank.vectors)


def save(ground: Any, bank: LabelBank, path: Path, **terms: Any) -> bytes:
    """Write a bank and its signature; returns both in one piece, as a link carries them."""
    bank.save(path)
    signature: str = ground.sign(path, **terms)
    return signature.encode() + path.read_bytes()


def test_one_piece_is_split_again(ground: Any, aircraft: Path, colour_bank: LabelBank, tmp_path: Path) -> None:
    """``cat BANK.minisig BANK``; an incomplete signature, or one without end, is refused."""
    piece = save(ground, colour_bank, tmp_path / "b.safetensors")
    assert receive_bank(piece, source="x").sha256 == colour_bank.sha256
    assert split_signed(b"plain", source="x") == (None, b"plain")
    for torn in (piece[:100], b"untrusted comment: " + b"\n" * 3 + b"x" * 100_000, b"untrusted comment: \n\n\n\xff\n"):
        with pytest.raises(SignatureError):
            receive_bank(torn, source="x")


def test_a_bank_of_a_signed_bundle_needs_no_signature(
    ground: Any, aircraft: Path, colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """The signed manifest names it by its hash; a changed one, or another bundle's, is refused."""
    shutil.copytree(colour_bundle.directory, tmp_path / "bundle")
    (tmp_path / "bundle" / "labels").mkdir()
    inside = tmp_path / "bundle" / "labels" / "colours.safetensors"
    colour_bank.save(inside)
    seal(tmp_path / "bundle", colour_bundle.manifest)
    ground.sign(tmp_path / "bundle")
    opened = Bundle.open(tmp_path / "bundle")
    assert open_bank(inside, opened).sha256 == colour_bank.sha256
    with Overflight.load(opened) as overflight:
        assert overflight.bank.sha256 == colour_bank.sha256
    with pytest.raises(SignatureError, match="not signed"):
        open_bank(inside)
    renamed(colour_bank, "changed").save(inside)
    with pytest.raises(SignatureError, match="not signed"):
        open_bank(inside, opened)


def test_run_refuses_unsigned_files(
    bundle: Bundle, ground: Any, colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """The command: an unsigned bundle or bank ends with exit code 1 and one line; signed ones fly."""
    bank = tmp_path / "bank.safetensors"
    colour_bank.save(bank)

    def run(folder: Path, out: str) -> Any:
        source = "test://?frames=3&fps=0&size=64x48"
        arguments = ["run", source, "--bundle", str(folder), "--labels", str(bank), "--out", str(tmp_path / out)]
        return CliRunner().invoke(cli, arguments)

    for folder in (bundle.directory, colour_bundle.directory):
        refused = run(folder, "refused")
        assert isinstance(refused.exception, SignatureError)
        assert "not signed" in str(refused.exception)
    assert not (tmp_path / "refused").exists()
    ground.sign(bank)
    assert run(bundle.directory, "flight").exit_code == 0
    accepted = msgspec.json.decode((tmp_path / "home" / "accepted.json").read_bytes())
    assert set(accepted) == {"bundle", "bank"}


def test_the_watched_folder_takes_only_signed_banks(
    ground: Any, aircraft: Path, colour_bank: LabelBank, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Refused while unsigned, taken when its signature follows, refused when an older one comes back."""
    folder = tmp_path / "banks"
    folder.mkdir()
    taken: list[str] = []

    def use(bank: LabelBank) -> None:
        bank.accept()
        taken.append(bank.header.name)

    def wait_for(text: str) -> None:
        end, said = time.monotonic() + 10, ""
        while text not in said + "".join(taken):
            assert time.monotonic() < end, said
            said += capfd.readouterr().err
            time.sleep(0.02)

    watch = BankWatch(folder, use)
    try:
        renamed(colour_bank, "late").save(folder / "late.safetensors")
        wait_for("not signed")
        ground.sign(folder / "late.safetensors", counter=7)
        wait_for("late")
        save(ground, renamed(colour_bank, "old"), folder / "old.safetensors", counter=6)
        wait_for("counter 6, lower than 7")
    finally:
        watch.close()
    assert taken == ["late"]


def test_a_flight_takes_only_signed_banks_over_http(
    loaded: Overflight, ground: Any, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """Unsigned, altered and replayed ones are answered 409 with the reason, a newer one is used."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    new = save(ground, renamed(colour_bank, "new"), tmp_path / "new.safetensors", counter=9)
    old = save(ground, renamed(colour_bank, "old"), tmp_path / "old.safetensors", counter=8)
    unsigned = (tmp_path / "new.safetensors").read_bytes()
    answers: list[tuple[int, str]] = []

    def post(piece: bytes) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token_path().read_text().strip()}"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{port}/bank", piece, headers), timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    flying = threading.Event()

    def send() -> None:
        flying.wait(10)
        pieces = (unsigned, new[:-1] + bytes([new[-1] ^ 1]), old, new, old, b"untrusted comment: x\n")
        answers.extend(map(post, pieces))

    sender = threading.Thread(target=send)
    sender.start()

    def watch(stream: Stream, observation: Observation) -> None:
        flying.set()
        if len(answers) == 6:
            stream.stop()

    record = fly(
        loaded, "test://?fps=50&size=64x48", tmp_path / "f", FlightConfig(health_port=port), on_observation=watch
    )
    sender.join()
    assert [code for code, _ in answers] == [409, 409, 200, 200, 409, 409]
    assert [said.split("; ")[0].split(": ", 1)[1][:22] for code, said in answers if code == 409] == [
        "not signed, and this m",
        "the content does not m",
        "signed with counter 8,",
        "an incomplete signatur",
    ]
    assert record.ended_because == "stopped"


def test_keys_and_signatures_from_the_command_line(
    colour_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """keys new, keys trust, sign, keys check, keys list: the whole way, with a password from a file."""
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(tmp_path / "keys"))
    shutil.copytree(colour_bundle.directory, tmp_path / "bundle")
    (tmp_path / "password").write_text("correct horse\n")

    def run(*arguments: str | Path) -> str:
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    password = ("--password-file", tmp_path / "password")
    run("keys", "new", tmp_path / "survey.key", *password)
    assert "no key is trusted" in run("keys", "list")
    run("keys", "trust", tmp_path / "survey.pub")
    run("sign", tmp_path / "bundle", "--key", tmp_path / "survey.key", *password, "--expires", "30d")
    assert "signed by key" in run("keys", "check", tmp_path / "bundle")
    listed = msgspec.json.decode(run("keys", "list", "--json"))
    assert len(listed["keys"]) == 1


def test_secrets_stay_off_the_aircraft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Jetson neither keys new nor sign run: exit code 2 and the reason."""
    board = tmp_path / "nv_tegra_release"
    board.write_text("# R36")
    monkeypatch.setattr("overflight.runtime.signing.BOARD", board)
    for arguments in (["keys", "new", str(tmp_path / "k.key")], ["sign", str(tmp_path), "--key", "k.key"]):
        done = CliRunner().invoke(cli, arguments)
        assert "secret keys stay on the ground" in str(done.exception)
    assert not (tmp_path / "k.key").exists()
