"""The engine store and the choice of what flies.

Covers: runtime/engines/record.py, runtime/engines/target.py.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.runtime.bundle import Bundle, hash_file
from overflight.runtime.engines import device_name, versions
from overflight.runtime.engines.record import EngineRecord, Timing
from overflight.runtime.errors import EngineError, MissingError
from overflight.runtime.evaluation.fidelity import failed, judge, measure
from overflight.runtime.store import Store, StoredEngine, choose, default_engine


def record_of(bundle: Bundle, **changes: object) -> EngineRecord:
    """Describe the bundle's own graph on ONNX Runtime, proven and timed."""
    rows = np.eye(3, dtype=np.float32)
    sha256 = bundle.manifest.files["image.onnx"]
    plain = EngineRecord(
        schema=1,
        bundle=bundle.sha256,
        target="onnxruntime-cpu",
        precision="int8",
        variant="dynamic",
        graph="image.onnx",
        graph_sha256=sha256,
        file=None,
        sha256=sha256,
        size_bytes=1,
        versions=versions("onnxruntime-cpu"),
        device=device_name("onnxruntime-cpu"),
        max_batch=1,
        built_utc="2026-01-01T00:00:00Z",
        build_s=0.0,
        verdict=judge(measure(rows, rows), "int8"),
        timing=Timing(1, 0, 1000, 2000, (1000,)),
    )
    return msgspec.structs.replace(plain, **changes)


def put(store: Store, record: EngineRecord, content: bytes | None = None) -> StoredEngine:
    with store.lock(), store.staging() as staged:
        if content is not None:
            (staged / "engine.bin").write_bytes(content)
            record = msgspec.structs.replace(record, file="engine.bin", sha256=hash_file(staged / "engine.bin"))
        return store.put(staged, record)


@pytest.fixture
def store(colour_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path))
    return Store(colour_bundle)


def test_with_nothing_built_the_reference_flies_and_says_what_build_would_gain(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty store is no error."""
    with caplog.at_level(logging.WARNING, "overflight"):
        chosen = choose(store.bundle)
    assert chosen.record is None
    assert (chosen.engine.info.target, chosen.engine.info.precision) == ("onnxruntime-cpu", "fp32")
    assert "overflight build" in chosen.note
    assert chosen.note in caplog.text


def test_the_default_engine_is_what_build_chose(store: Store) -> None:
    """What was put and made default is what opens."""
    entry = put(store, record_of(store.bundle))
    store.set_default(entry)
    assert store.default() == entry
    engine = default_engine(store.bundle)
    assert engine.info.precision == "int8"
    assert engine.embed(np.full((1, 32, 32, 3), 200, np.uint8)).shape == (1, 3)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [(None, "never judged"), (failed("cosine_mean 0.9 is below 0.995", "int8"), "cosine_mean 0.9 is below 0.995")],
)
def test_an_unproven_engine_is_refused_unless_forced(store: Store, verdict: object, reason: str) -> None:
    """Refused by name, passed over as the default, and marked when forced."""
    store.set_default(put(store, record_of(store.bundle, verdict=verdict)))
    with pytest.raises(EngineError, match=reason):
        choose(store.bundle, precision="int8")
    fallback = choose(store.bundle)
    assert fallback.record is None
    assert reason in fallback.note
    forced = choose(store.bundle, precision="int8", forced=True)
    assert forced.record is not None
    assert forced.note.startswith("forced: ")
    assert reason in forced.note


def test_a_default_that_cannot_run_gives_way_to_the_next_proven_engine(store: Store) -> None:
    """Another library version, another device, a changed file: passed over loudly."""
    slow = put(store, record_of(store.bundle, timing=Timing(1, 0, 9000, 9000, (9000,))))
    for change in ({"versions": {"onnxruntime": "0.1"}}, {"device": "another"}):
        store.set_default(put(store, record_of(store.bundle, **change)))
        chosen = choose(store.bundle)
        assert chosen.record == slow.record
        assert "cannot run" in chosen.note
    damaged = put(store, record_of(store.bundle, variant="static"), b"an engine")
    (damaged.path / "engine.bin").write_bytes(b"another")
    store.set_default(damaged)
    chosen = choose(store.bundle)
    assert chosen.record == slow.record
    assert "SHA-256" in chosen.note


def test_what_was_never_built_is_missing(store: Store) -> None:
    """Asking for it by name ends with what to do."""
    with pytest.raises(MissingError, match="overflight build"):
        choose(store.bundle, "tensorrt", "fp16")


def test_a_torn_record_or_default_is_passed_over(store: Store) -> None:
    """Neither half a record nor half a choice stops a start."""
    entry = put(store, record_of(store.bundle))
    store.set_default(entry)
    (store.path / "default").write_bytes(b'{"schema":1,"ent')
    assert store.default() is None
    (entry.path / "engine.json").write_bytes((entry.path / "engine.json").read_bytes()[:40])
    assert store.entries() == []
    assert choose(store.bundle).record is None


def test_a_killed_build_leaves_nothing_that_counts(store: Store) -> None:
    """What a dead builder staged is never an entry, and the next builder clears it."""
    entry = put(store, record_of(store.bundle))
    store.set_default(entry)
    code = (
        "import os; from overflight.runtime.bundle import Bundle; from overflight.runtime.store import Store\n"
        f"store = Store(Bundle.open({str(store.bundle.directory)!r}))\n"
        "with store.lock(), store.staging() as staged:\n"
        "    (staged / 'engine.json').write_bytes(b'{}')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "src"}, check=False)
    assert done.returncode == -9
    assert list(store.path.glob(".partial-*"))
    assert store.entries() == [entry]
    assert store.default() == entry
    with store.lock():
        assert not list(store.path.glob(".partial-*"))


def test_two_builders_do_not_share_a_store(store: Store) -> None:
    """The second is refused at once and not queued for minutes."""
    with store.lock(), pytest.raises(EngineError, match="another build"), Store(store.bundle).lock():
        pass


def test_a_home_that_cannot_be_written_is_reported(
    colour_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable that moves it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "file"))
    with pytest.raises(MissingError, match="OVERFLIGHT_HOME"), Store(colour_bundle).lock():
        pass


def test_every_thing_an_engine_depends_on_changes_its_key(store: Store) -> None:
    """Library, device, profile, variant and graph each make another engine."""
    base = put(store, record_of(store.bundle)).path
    changes: list[dict[str, object]] = [
        {"versions": {"onnxruntime": "9"}},
        {"device": "x"},
        {"max_batch": 4},
        {"variant": "static"},
        {"graph_sha256": "0" * 64},
    ]
    paths = {put(store, record_of(store.bundle, **change)).path for change in changes}
    assert len(paths | {base}) == 6


def test_with_a_trusted_key_an_engine_that_others_can_change_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines are not signed: the hash of the signed bundle names them, and only their owner may write them."""
    pytest.importorskip("cryptography")
    from overflight.runtime.errors import SignatureError
    from overflight.runtime.signatures.terms import Terms
    from overflight.runtime.signatures.trust import Approval

    entry = put(store, record_of(store.bundle), b"an engine")
    engine = entry.path / "engine.bin"
    engine.chmod(0o666)
    assert entry.check(store.bundle) == engine
    approval = Approval("bundle", "key", Terms(1), store.bundle.sha256, tmp_path / "accepted.json")
    signed = Bundle(store.bundle.directory, store.bundle.manifest, store.bundle.sha256, approval)
    for path in (engine, entry.path / "engine.json", entry.path, store.path):
        path.chmod(0o777)
        with pytest.raises(SignatureError, match="others can change it"):
            entry.check(signed)
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert entry.check(signed) == engine
