"""An engine that remembers: the same answers, without computing them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from overflight.runtime import Overflight
from overflight.station.archive import Archive, sources
from overflight.station.archive.remembered import RememberedEngine, remembering

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def overflight(colour_bundle: Bundle, colour_bank: LabelBank) -> Any:
    with Overflight.load(colour_bundle, colour_bank) as loaded:
        yield loaded


def frames(count: int, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8)


def test_a_torn_file_answers_what_it_kept_whole(overflight: Overflight, tmp_path: Path) -> None:
    engine, path = overflight.engine, tmp_path / "kept"
    shown = frames(4, engine.side)
    expected = engine.embed(shown).copy()
    first = RememberedEngine(engine, path)
    assert np.array_equal(first.embed(shown[:3]), expected[:3])
    first.close()
    path.write_bytes(path.read_bytes()[:-5])  # the last record was half written
    again = RememberedEngine(engine, path)
    assert np.array_equal(again.embed(shown[:2]), expected[:2])
    assert again.remembered == 2
    assert np.array_equal(again.embed(shown[2:]), expected[2:])
    assert again.remembered == 2
    again.close()


def test_the_file_is_kept_after_an_error_and_removed_after_success(overflight: Overflight, tmp_path: Path) -> None:
    engine, path = overflight.engine, tmp_path / "kept"
    with pytest.raises(RuntimeError), remembering(overflight, path):
        overflight.embed([frames(1, 50)[0]])
        raise RuntimeError
    assert path.is_file()
    assert overflight.engine is engine is overflight.observer.engine
    with remembering(overflight, path):
        pass
    assert not path.exists()


def test_an_interrupted_add_computes_only_what_is_missing(
    overflight: Overflight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command stops at the sixth still; repeated, it embeds the other six only and adds all twelve."""
    (tmp_path / "stills").mkdir()
    for number, picture in enumerate(frames(12, 40)):
        cv2.imwrite(str(tmp_path / "stills" / f"{number:02}.png"), picture)
    archive = Archive(tmp_path / "archive")
    seen: list[int] = []

    def stop(_stream: object, observation: Any) -> None:
        seen.append(observation.frame)
        if len(seen) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sources.add_source(archive, tmp_path / "stills", overflight, on_observation=stop)
    computed: list[int] = []
    embed = overflight.engine.embed

    def counted(batch: Any) -> Any:
        computed.append(len(batch))
        return embed(batch)

    monkeypatch.setattr(overflight.engine, "embed", counted)
    flight, new = sources.add_source(archive, tmp_path / "stills", overflight)
    assert new
    assert (flight.rows, sum(computed)) == (12, 6)
    assert not list(archive.directory.glob(".[ef]*-*"))
