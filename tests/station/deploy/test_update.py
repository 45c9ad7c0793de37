"""Updating on the aircraft: staged, proven, switched in one step, and back.

Covers: station/commands/update.py.
"""

from __future__ import annotations

import http.server
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from overflight.runtime.bank import BankHeader, Label, LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import BundleError, OverflightError, SignatureError, UsageError
from overflight.runtime.flight.gauges import Status
from overflight.station.deploy.deployments import Deployments
from overflight.station.deploy.running import Running
from overflight.station.deploy.staging import prepare

pytest.importorskip("onnxruntime")
MakeBundle = Callable[..., Bundle]
Aircraft = Any  # of this folder's conftest
NO_FLIGHT = Running(1, "")


@pytest.fixture
def say() -> Iterator[Callable[..., int]]:
    """Return what starts a stand-in for a flight's health port, which answers with a status."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(**status: Any) -> int:
        given = {"fresh": True, "observed": 9, "trouble": None, "flight": "/f", "bundle": "b", "bank": "k"} | status

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = msgspec.json.encode(Status(**given))
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return int(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def current(aircraft: Aircraft) -> tuple[str, str]:
    """Return the names of the bundle and the bank that a flight would open now."""
    from overflight.runtime.bank import open_bank

    folder = aircraft.home / "deployments" / "current"
    bundle = Bundle.open(folder / "bundle")
    return bundle.manifest.name, open_bank(folder / "bank.safetensors", bundle).header.name


def test_a_bundle_is_deployed_with_its_own_bank(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """Proven by frames that it observed; the same again changes nothing; nothing is left in between."""
    update = aircraft.update(running=NO_FLIGHT)
    first = make_bundle("first")
    outcome = update.take(str(first.directory), None)
    assert (outcome.action, outcome.previous, outcome.restarted) == ("deployed", None, "")
    assert "5 frames" in outcome.proof
    assert current(aircraft) == ("first", "bank of first")
    assert update.take(str(first.directory), None).action == "unchanged"
    assert [action.action for action in update.deployments.history()] == ["deployed"]
    assert not list(update.deployments.path.rglob("*partial*"))


def test_a_bank_is_kept_where_it_fits(aircraft: Aircraft, make_bundle: MakeBundle, make_bank: Any) -> None:
    """A bundle that comes alone keeps the bank in use; one of another tower brings its own, which is said."""
    update = aircraft.update(running=NO_FLIGHT)
    with pytest.raises(UsageError, match="deploy a bundle first"):
        update.take(None, str(make_bank("early")))
    update.take(str(make_bundle("first").directory), None)
    update.take(None, str(make_bank("scenes")))
    assert current(aircraft) == ("first", "scenes")
    assert "scenes, is kept" in update.take(str(make_bundle("second").directory), None).notes[0]
    assert current(aircraft) == ("second", "scenes")
    notes = update.take(str(make_bundle("third", tower="d" * 64).directory), None).notes
    assert "own bank, bank of third, is used" in notes[0]
    assert current(aircraft) == ("third", "bank of third")


def test_rollback_and_history(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """Back one, back another, and then there is nothing before; a new deployment goes on from there."""
    update = aircraft.update(running=NO_FLIGHT)
    for name in ("first", "second", "third"):
        update.take(str(make_bundle(name).directory), None)
    assert update.roll_back().deployment.bundle_name == "second"
    assert update.roll_back().deployment.bundle_name == "first"
    with pytest.raises(UsageError, match="no deployment before"):
        update.roll_back()
    update.take(str(make_bundle("fourth").directory), None)
    assert update.roll_back().deployment.bundle_name == "first"
    actions = [action.action for action in update.deployments.history()]
    assert actions == ["deployed"] * 3 + ["rolled back"] * 2 + ["deployed", "rolled back"]


def test_old_deployments_are_pruned_with_what_they_need(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """Five are kept; bundles, banks and engines that none of them needs are deleted."""
    update = aircraft.update(running=NO_FLIGHT)
    made = [make_bundle(f"bundle-{number}") for number in range(7)]
    for bundle in made:
        engines = aircraft.home / "engines" / bundle.sha256[:16]
        engines.mkdir(parents=True)
        update.take(str(bundle.directory), None)
    assert [one.bundle_name for one in update.deployments.all()] == [f"bundle-{number}" for number in range(2, 7)]
    kept = {bundle.sha256[:16] for bundle in made[2:]}
    for folder in ("deployments/bundles", "engines"):
        assert {path.name for path in (aircraft.home / folder).iterdir()} == kept


@pytest.mark.slow
def test_failed_deployments_do_not_push_out_the_one_to_go_back_to(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """Two that flew, two that did not become fresh, then as many are kept as flew."""
    for name in ("first", "second"):
        aircraft.update(running=NO_FLIGHT).take(str(make_bundle(name).directory), None)
    failing = aircraft.update(running=Running(1, "true"), force=True, within_s=0.1)
    for name in ("third", "fourth"):
        with pytest.raises(OverflightError, match="did not become fresh"):
            failing.take(str(make_bundle(name).directory), None)
    deployments = Deployments(aircraft.home)
    deployments.prune(keep=2)
    assert [one.bundle_name for one in deployments.all()] == ["first", "second"]
    previous = deployments.before(deployments.current())
    assert previous is not None
    assert previous.bundle_name == "first"


def test_a_bundle_that_does_not_fly_is_never_switched_to(
    aircraft: Aircraft, make_bundle: MakeBundle, spoil: Callable[[Bundle], Bundle]
) -> None:
    """An engine that answers NaN is found by the proof, before anything is switched."""
    update = aircraft.update(running=NO_FLIGHT)
    update.take(str(make_bundle("good").directory), None)
    with pytest.raises(OverflightError, match="nothing was switched"):
        update.take(str(spoil(make_bundle("bad")).directory), None)
    assert current(aircraft) == ("good", "bank of good")


@pytest.mark.parametrize("damage", ["flipped", "missing", "extra", "link", "fifo"])
def test_a_damaged_bundle_is_refused_whole(aircraft: Aircraft, make_bundle: MakeBundle, damage: str) -> None:
    """A changed, missing or unnamed file, and what is no file, in a folder that arrived."""
    import os

    folder = make_bundle("bad").directory
    if damage == "flipped":
        raw = bytearray((folder / "image.onnx").read_bytes())
        raw[100] ^= 1
        (folder / "image.onnx").write_bytes(raw)
    elif damage == "missing":
        (folder / "image.onnx").unlink()
    elif damage == "extra":
        (folder / "startup.py").write_text("")
    elif damage == "link":
        shutil.move(folder / "image.onnx", folder.parent / "image.onnx")
        (folder / "image.onnx").symlink_to(folder.parent / "image.onnx")
    else:
        os.mkfifo(folder / "pipe")
    with pytest.raises(BundleError):
        aircraft.update(running=NO_FLIGHT).take(str(folder), None)
    assert Deployments(aircraft.home).all() == []


@pytest.mark.parametrize(
    ("status", "why"),
    [({"armed": True}, "the autopilot says armed"), ({"armed": None}, "a flight goes on")],
    ids=["armed", "in flight"],
)
def test_nothing_is_deployed_in_flight(
    aircraft: Aircraft, make_bundle: MakeBundle, say: Callable[..., int], status: dict[str, Any], why: str
) -> None:
    """Refused before anything is copied or built; forced, it goes on to the next question."""
    port = say(**status)
    bundle = make_bundle("first")
    with pytest.raises(OverflightError, match=why):
        aircraft.update(running=Running(port, "")).take(str(bundle.directory), None)
    assert Deployments(aircraft.home).all() == []
    forced = aircraft.update(running=Running(port, "true"), force=True, within_s=1.0)
    with pytest.raises(OverflightError, match="did not become fresh within 1 s"):
        forced.take(str(bundle.directory), None)
    assert Deployments(aircraft.home).current() is None


def test_a_disarmed_autopilot_allows(aircraft: Aircraft, say: Callable[..., int]) -> None:
    """A flight on the ground, with motors that are known to be off, may be restarted."""
    Running(say(armed=False), "").refuse_in_flight(aircraft.home / "flights")


def test_a_flight_without_a_health_port_is_found_by_its_lock(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """A flight that somebody started by hand; once it has ended, nothing is in the way."""
    from overflight.runtime.flight.directory_lock import lock_directory, release

    flight = aircraft.home / "flights" / "20261125T190000Z"
    flight.mkdir(parents=True)
    bundle = make_bundle("first")
    lock = lock_directory(flight)
    with pytest.raises(OverflightError, match=r"a flight goes on .*20261125T190000Z"):
        aircraft.update(running=NO_FLIGHT).take(str(bundle.directory), None)
    release(lock)
    assert aircraft.update(running=NO_FLIGHT).take(str(bundle.directory), None).action == "deployed"


def test_a_damaged_deployed_bundle_is_replaced_by_a_good_one_only(
    aircraft: Aircraft, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """What is in use is not deleted for an upload that is damaged too."""
    first = make_bundle("first")
    update = aircraft.update(running=NO_FLIGHT)
    update.take(str(first.directory), None)
    deployed = update.deployments.bundle_path(first.sha256) / "image.onnx"
    good = first.directory / "image.onnx"
    kept = good.read_bytes()
    deployed.write_bytes(b"damaged")
    good.write_bytes(b"damaged too")
    with pytest.raises(BundleError):
        update.take(str(first.directory), None)
    assert deployed.read_bytes() == b"damaged"
    good.write_bytes(kept)
    update.take(str(first.directory), None)
    assert deployed.read_bytes() == kept


def test_only_one_update_at_a_time(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """A second one is refused; it would switch under the first one's proof."""
    update = aircraft.update(running=NO_FLIGHT)
    with update.deployments.lock(), pytest.raises(OverflightError, match="another update is running"):
        update.take(str(make_bundle("first").directory), None)


def test_a_full_disk_is_said_before_it_is_filled(
    aircraft: Aircraft, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the numbers, and with room for the flight kept free."""
    usage = type(shutil.disk_usage("/"))(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OverflightError, match="1 MB are free"):
        aircraft.update(running=NO_FLIGHT).take(str(make_bundle("first").directory), None)
    with pytest.raises(OverflightError, match="500 MB are needed"):
        prepare(Deployments(aircraft.home), "a" * 64, 500 * 10**6)
    assert Deployments(aircraft.home).all() == []


def test_uploads_that_were_given_up_are_deleted(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """The next upload makes room, but keeps its own beginning to resume."""
    deployments = Deployments(aircraft.home)
    for name in ("a" * 16, "b" * 16):
        (deployments.incoming / name).mkdir(parents=True)
    assert not prepare(deployments, "a" * 64, 1)
    assert [path.name for path in deployments.incoming.iterdir()] == ["a" * 16]


def test_an_interrupted_trial_is_undone(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """Power that fails between the switch and the proof: the next start goes back; during an update it does not."""
    update = aircraft.update(running=NO_FLIGHT)
    first = update.take(str(make_bundle("first").directory), None).deployment
    second = update.take(str(make_bundle("second").directory), None).deployment
    update.deployments.begin_trial(second, first)
    with update.deployments.lock():
        assert update.resume() is None
    outcome = update.resume()
    assert outcome is not None
    assert outcome.deployment == first
    assert current(aircraft) == ("first", "bank of first")
    assert update.deployments.history()[-1].action == "failed"
    assert update.resume() is None


def test_signatures_decide_and_rollback_returns_their_counters(
    aircraft: Aircraft, make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsigned and older bundles are refused; a rollback may use the older one, and its flight is not refused."""
    pytest.importorskip("cryptography")
    from overflight.runtime.signatures.secret_key import SecretKey
    from overflight.runtime.signatures.terms import Terms
    from overflight.runtime.signatures.trust import trust_key
    from overflight.runtime.signing import sign_path

    monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(tmp_path / "keys"))
    key = SecretKey.make()
    (tmp_path / "k.pub").write_text(key.public.encode())
    trust_key(tmp_path / "k.pub")
    update = aircraft.update(running=NO_FLIGHT)
    bundles = [make_bundle(name) for name in ("first", "second", "old")]
    with pytest.raises(SignatureError, match="not signed"):
        update.take(str(bundles[0].directory), None)
    for bundle, counter in zip(bundles, (5, 6, 4), strict=True):
        sign_path(bundle.directory, key, Terms.make(counter=counter))
    update.take(str(bundles[0].directory), None)
    update.take(str(bundles[1].directory), None)
    for refused in (bundles[2], bundles[0]):
        with pytest.raises(SignatureError, match="lower than 6"):
            update.take(str(refused.directory), None)
    update.roll_back()
    assert current(aircraft)[0] == "first"
    Bundle.open(aircraft.home / "deployments" / "current" / "bundle").accept()


@pytest.mark.slow
def test_a_running_flight_is_switched_and_switched_back(
    aircraft: Aircraft, make_bundle: MakeBundle, make_bank: Any
) -> None:
    """A real flight: it becomes fresh with the new bundle; one that does not come up is switched back, and it is fresh.

    A bank alone is taken by the flight that watches it, without a restart.
    """
    update = aircraft.update(force=True)
    update.take(str(make_bundle("first").directory), None)
    status = update.running.status()
    assert status is not None
    assert status.fresh
    bank = update.take(None, str(make_bank("scenes")))
    assert bank.restarted == "not needed, the flight took the new bank"
    after = update.running.status()
    assert after is not None
    assert after.pid == status.pid
    second = make_bundle("second")
    aircraft.install(f"grep -q '\"second\"' {aircraft.home}/deployments/current/bundle/manifest.json && exit 0")
    began = time.monotonic()
    with pytest.raises(OverflightError, match=r"did not become fresh within 8 s: no flight answers.*switched back to"):
        aircraft.update(force=True, within_s=8.0).take(str(second.directory), None)
    assert time.monotonic() - began >= 8
    assert current(aircraft) == ("first", "scenes")
    again = update.running.status()
    assert again is not None
    assert again.fresh
    assert update.deployments.history()[-1].action == "failed"


@pytest.mark.slow
def test_the_engines_are_built_on_the_aircraft(aircraft: Aircraft, calibrated_bundle: Bundle, tmp_path: Path) -> None:
    """A calibrated bundle gets its engines there, and the fastest that passes is proven by frames."""
    from overflight.runtime.store import Store

    vectors = np.eye(2, calibrated_bundle.manifest.width, dtype=np.float32)
    manifest = calibrated_bundle.manifest
    labels = tuple(Label(text, (text,)) for text in ("one", "other"))
    names = (1, "two", manifest.name, manifest.tower)
    header = BankHeader(*names, manifest.activation, manifest.logit_scale, manifest.logit_bias, labels)
    LabelBank.make(header, vectors).save(tmp_path / "two.safetensors")
    update = aircraft.update(running=NO_FLIGHT, build=True)
    outcome = update.take(str(calibrated_bundle.directory), str(tmp_path / "two.safetensors"))
    staged = Bundle.open(aircraft.home / "deployments" / "current" / "bundle")
    default = Store(staged, aircraft.home).default()
    assert default is not None
    assert outcome.proof.startswith(f"{default.record.target} {default.record.precision}")


def test_a_bundle_that_was_never_calibrated_builds_no_engines(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """It has no frames to check engines on; that is said, and the reference is used."""
    outcome = aircraft.update(running=NO_FLIGHT, build=True).take(str(make_bundle("first").directory), None)
    assert any("never calibrated" in note for note in outcome.notes)


@pytest.mark.slow
def test_the_flight_is_ended_where_nothing_else_restarts_it(aircraft: Aircraft, make_bundle: MakeBundle) -> None:
    """Without rights over systemd the flight gets SIGTERM, and its service starts it again."""
    aircraft.update(force=True).take(str(make_bundle("first").directory), None)
    running = Running(aircraft.port)
    assert running.apply(5).startswith("ended process")
    end = time.monotonic() + 20
    while running.status() is not None:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_port_that_is_no_flight_is_no_flight() -> None:
    """A server that talks another language, or endlessly, is not a flight."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000)

        threading.Thread(target=talk, daemon=True).start()
        assert Running(port).status() is None
    assert Running(port).status() is None


def test_the_manifest_alone_renews_a_signature(aircraft: Aircraft, make_bundle: MakeBundle, tmp_path: Path) -> None:
    """A bundle that is there already is not copied again."""
    update = aircraft.update(running=NO_FLIGHT)
    first = make_bundle("first")
    update.take(str(first.directory), None)
    assert prepare(update.deployments, first.sha256, 10**15)
