"""From frames to an enriched bundle, and every way that can be interrupted or refused.

Covers: calibration/checkpointing.py, calibration/commands/calibrate.py, calibration/repeat.py,
calibration/sensitivity.py, calibration/write_bundle.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from overflight.calibration.calibrate import Calibration, calibrate
from overflight.calibration.clip import choose
from overflight.calibration.commands.calibrate import command
from overflight.calibration.recipe import load_recipe
from overflight.calibration.repeat import repeat
from overflight.calibration.sensitivity import comfortable
from overflight.calibration.write_bundle import ADDED, enrich_with
from overflight.runtime.bundle import MANIFEST, Bundle
from overflight.runtime.durable import write_atomically
from overflight.runtime.engines.record import Fidelity
from overflight.runtime.errors import EngineError, MissingError, OverflightError, UsageError
from overflight.runtime.evaluation.holdout import bundled_holdout, gather_heldout, overlap, read_picked


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))


def test_a_bundle_gains_both_graphs_with_their_verdicts(
    tower_bundle: Bundle, calibration: Calibration, scenery: Path
) -> None:
    """Everything is sealed: graphs, recipe, frames and hold-out; labels of the same tower still fit."""
    made = enrich_with(tower_bundle, calibration)
    made.verify()
    assert made.sha256 != tower_bundle.sha256
    assert made.manifest.tower == tower_bundle.manifest.tower
    assert set(made.manifest.files) >= ADDED
    assert calibration.verdicts["fp16"].passed
    assert calibration.verdicts["int8"].passed
    calibrated = made.manifest.calibrated
    assert calibrated is not None
    held = bundled_holdout(made)
    assert calibrated.holdout == len(held.frames)
    assert set(held.truth) == {"field", "town"}
    assert overlap(made, held) == 0
    picked = read_picked(made)
    again = gather_heldout(made, [str(scenery)], 500)
    assert overlap(made, again) >= sum(one.part != "holdout" for one in picked.frames)


def test_the_recipe_repeats_the_same_graphs_without_frames(
    tower_bundle: Bundle, calibration: Calibration, tmp_path: Path
) -> None:
    """Weights and recipe are enough, bit for bit; another tower's recipe is refused."""
    made = enrich_with(tower_bundle, calibration)
    wanted = {name: made.manifest.files[name] for name in ("image.fp16.onnx", "image.int8.onnx")}
    kept = tmp_path / "kept"
    (made.directory / "calibration").rename(kept)
    repeated, recipe, verdicts = repeat(tower_bundle, kept)
    assert verdicts == {}
    with pytest.raises(MissingError, match="--frames"):
        bundled_holdout(repeated)
    assert recipe == calibration.recipe == load_recipe(kept)[0]
    assert {name: repeated.manifest.files[name] for name in wanted} == wanted
    other = msgspec.structs.replace(tower_bundle.manifest, tower="8" * 64)
    with pytest.raises(UsageError, match="a recipe for tower"):
        repeat(Bundle(tower_bundle.directory, other, "0" * 64), kept)


def test_a_repeated_calibration_is_judged_on_other_frames(
    tower_bundle: Bundle, calibration: Calibration, scenery: Path, tmp_path: Path
) -> None:
    """A recipe and a film are enough for a bundle whose engines can be built anywhere."""
    made = enrich_with(tower_bundle, calibration)
    kept = tmp_path / "kept"
    (made.directory / "calibration").rename(kept)
    repeated, _, verdicts = repeat(tower_bundle, kept, [str(scenery)])
    assert verdicts["fp16"].passed
    assert verdicts["int8"].passed
    assert len(bundled_holdout(repeated).frames) > 64
    repeated.verify()


def test_the_bundle_verifies_at_every_moment_of_enriching(
    tower_bundle: Bundle, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any one of the writes, first time or again, what lies there is a whole bundle."""
    real = write_atomically
    writes = 0

    class Killed(BaseException):
        pass

    def counted(path: Path, content: bytes) -> None:
        nonlocal writes
        Bundle.open(tower_bundle.directory).verify()
        if writes == 0:
            raise Killed
        writes -= 1
        real(path, content)

    monkeypatch.setattr("overflight.calibration.write_bundle.write_atomically", counted)
    monkeypatch.setattr("overflight.calibration.recipe.write_atomically", counted)
    for round_ in range(2):
        for allowed in range(20):
            writes = allowed
            try:
                enrich_with(Bundle.open(tower_bundle.directory), calibration)
            except Killed:
                Bundle.open(tower_bundle.directory).verify()
            else:
                break
        else:
            pytest.fail("never finished")
        assert allowed >= 6 + round_
    assert Bundle.open(tower_bundle.directory).manifest.calibrated is not None


def test_an_interrupted_calibration_goes_on_where_it_was(
    tower_bundle: Bundle, scenery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while ranges are chosen: the second call reads and embeds nothing again."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("overflight.calibration.calibrate.choose", interrupt)
    with pytest.raises(KeyboardInterrupt):
        calibrate(tower_bundle, [str(scenery)], count=32)
    monkeypatch.setattr("overflight.calibration.calibrate.choose", choose)
    stages: set[str] = set()
    calibrate(tower_bundle, [str(scenery)], count=32, report=lambda stage, share: stages.add(stage))
    assert "choosing ranges" in stages
    assert not stages & {"reading frames", "embedding frames", "reading ranges", "reading extremes"}


def test_what_costs_most_is_returned_to_float(
    tower_bundle: Bundle, scenery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one product's scale spoilt by sixty-four, the search returns that product, says so, and then passes."""
    from overflight.calibration import calibrate as room

    real = room._choose
    bad = "image.block1.attention.qkv"

    def spoilt(*arguments: object) -> object:
        recipe, smoothing = real(*arguments)  # type: ignore[arg-type]
        rows = tuple(
            msgspec.structs.replace(one, scale=one.scale * 64, error=1.0) if one.name == bad else one
            for one in recipe.products
        )
        return msgspec.structs.replace(recipe, products=rows), smoothing

    monkeypatch.setattr(room, "_choose", spoilt)
    found = calibrate(tower_bundle, [str(scenery)], count=32)
    kept = {one.name: one.kept for one in found.recipe.products if one.kept is not None}
    assert set(kept) == {bad}
    assert found.verdicts["int8"].passed
    assert all(one.loss is not None for one in found.recipe.products)


def test_a_read_only_bundle_is_reported(tower_bundle: Bundle, calibration: Calibration) -> None:
    """With what to do; nothing of it has changed."""
    import os

    if os.geteuid() == 0:
        (tower_bundle.directory / "calibration").write_text("a file where a folder should be")
    else:
        tower_bundle.directory.chmod(0o555)
    with pytest.raises(OverflightError, match="copy the bundle"):
        enrich_with(tower_bundle, calibration)
    Bundle.open(tower_bundle.directory).verify()


def test_tuning_must_leave_room() -> None:
    """Exactly at the gate is not comfortable: the hold-out will be harder."""
    good = Fidelity(10, 0.999, 0.997, 0.99, 0.9, (), "")
    assert comfortable(good)
    assert not comfortable(msgspec.structs.replace(good, cosine_mean=0.9951))
    assert not comfortable(msgspec.structs.replace(good, cosine_p1=0.981))


def test_the_command_prints_and_fails_honestly(
    tower_bundle: Bundle, scenery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON with verdicts; frames and a recipe at once is a wrong use; an unfaithful graph ends with exit code 1."""
    done = CliRunner().invoke(command, [str(tower_bundle.directory), str(scenery), "--count", "32", "--json"])
    assert done.exit_code == 0, done.output
    reported = json.loads(done.stdout)
    assert reported["verdicts"]["int8"]["passed"]
    assert len(reported["recipe"]["products"]) == 12
    wrong = CliRunner().invoke(command, [str(tower_bundle.directory)])
    assert isinstance(wrong.exception, UsageError)
    from overflight.calibration import calibrate as room
    from overflight.runtime.evaluation.fidelity import failed

    real = room.judge_graphs
    monkeypatch.setattr(
        room, "judge_graphs", lambda *given: {**real(*given), "int8": failed("cosine_mean 0.9 is below 0.995", "int8")}
    )
    broken = CliRunner().invoke(command, [str(tower_bundle.directory), str(scenery), "--count", "32"])
    assert isinstance(broken.exception, EngineError)
    assert "0.995" in str(broken.exception)


def test_a_torn_manifest_of_frames_is_reported(tower_bundle: Bundle, calibration: Calibration) -> None:
    """Not a traceback: the file and what to do."""
    made = enrich_with(tower_bundle, calibration)
    path = made.directory / "calibration/holdout.npz"
    path.write_bytes(b"PK")
    raw = msgspec.json.decode((made.directory / MANIFEST).read_bytes())
    import hashlib

    raw["files"]["calibration/holdout.npz"] = hashlib.sha256(b"PK").hexdigest()
    (made.directory / MANIFEST).write_bytes(msgspec.json.encode(raw))
    with pytest.raises(OverflightError, match="calibrate again"):
        bundled_holdout(Bundle.open(made.directory))


def test_int8_differs_from_fp32_where_inputs_differ(calibration: Calibration) -> None:
    """A proof must be able to fail: another frame is answered otherwise."""
    from overflight.calibration.sensitivity import embed_with

    answers = embed_with(calibration.graphs["int8"], calibration.holdout.frames[:4])
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_products_that_stand_out_are_returned_to_float(calibration: Calibration) -> None:
    """A product of ten times the usual cost goes, unless its block is settled already."""
    from overflight.calibration.sensitivity import return_standing_out

    even = tuple(msgspec.structs.replace(one, loss=1e-5, error=0.02, kept=None) for one in calibration.recipe.products)
    recipe = msgspec.structs.replace(calibration.recipe, products=even)
    assert return_standing_out(recipe) == recipe
    loud = msgspec.structs.replace(even[1], error=0.08)
    found = return_standing_out(msgspec.structs.replace(recipe, products=(even[0], loud, *even[2:])))
    assert [one.name for one in found.products if one.kept is not None] == [loud.name]
    settled = msgspec.structs.replace(even[0], kept="measured")
    again = return_standing_out(msgspec.structs.replace(recipe, products=(settled, loud, *even[2:])))
    assert [one.name for one in again.products if one.kept is not None] == [settled.name]


def test_the_gate_judges_varied_copies_too(calibration: Calibration) -> None:
    """A quarter of the hold-out is there twice, the second time varied, and described so."""
    held = [one for one in calibration.picked.frames if one.part == "holdout"]
    varied = [one for one in held if one.stratum == "varied"]
    assert len(calibration.holdout.frames) == len(held)
    assert len(varied) == -(-(len(held) - len(varied)) // 4)
    assert len({one.sha256 for one in held}) == len(held)
