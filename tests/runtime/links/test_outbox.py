"""The outbox: order, bounds, and what a killed process leaves.

Covers: runtime/event.py, runtime/links/message.py.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.links import outbox as module
from overflight.runtime.links.outbox import Outbox, claim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from overflight.runtime.event import Event

LINK = "mqtt://a/b"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "outbox.sqlite")
    yield made
    made.close()


def drain(outbox: Outbox, link: str = LINK) -> list[str]:
    keys = []
    while (message := outbox.next(link)) is not None:
        keys.append(message.key)
        outbox.done(link, message)
    return keys


def test_text_goes_first_and_pictures_last(outbox: Outbox, step: Callable[..., Event]) -> None:
    """Beginnings and ends, then changes, then pictures, each in the order they came."""
    outbox.put(step(1), b"jpeg", [LINK])
    outbox.put(step(1, "change", 1), b"", [LINK])
    outbox.put(step(2), b"jpeg", [LINK])
    outbox.put(step(1, "end", 2), b"", [LINK])
    assert drain(outbox) == [
        *("flight-1/0", "flight-2/0", "flight-1/2", "flight-1/1"),
        *("flight-1/0/thumbnail", "flight-2/0/thumbnail"),
    ]


def test_a_message_waits_for_each_link_alone(outbox: Outbox, step: Callable[..., Event]) -> None:
    """What one link has delivered still waits for the other; when both have, nothing is left on the disk."""
    outbox.put(step(1), b"jpeg", ["a", "b"])
    assert drain(outbox, "a") == ["flight-1/0", "flight-1/0/thumbnail"]
    assert outbox.waiting("b") == 2
    assert drain(outbox, "b") == ["flight-1/0", "flight-1/0/thumbnail"]
    assert rows(outbox.path) == 0


def test_what_was_handed_over_can_be_taken_back(outbox: Outbox, step: Callable[..., Event]) -> None:
    """It does not wait, it outlives the process, and it waits again when the other side may not have had it."""
    outbox.put(step(1), b"", [LINK])
    message = outbox.next(LINK)
    assert message is not None
    outbox.hand_over(LINK, message)
    assert outbox.next(LINK) is None
    assert outbox.waiting(LINK) == 0
    outbox.close()
    again = Outbox(outbox.path)
    assert again.take_back(LINK) == 1
    assert drain(again) == ["flight-1/0"]
    assert again.take_back(LINK) == 0
    assert rows(outbox.path) == 0
    again.close()


def test_the_same_message_is_kept_once(outbox: Outbox, step: Callable[..., Event]) -> None:
    """Publishing a step again while it waits does not send it twice."""
    outbox.put(step(1), b"", [LINK])
    outbox.put(step(1), b"", [LINK])
    assert drain(outbox) == ["flight-1/0"]


def test_numbers_are_never_used_again(outbox: Outbox, step: Callable[..., Event]) -> None:
    """A message that is let go late does not take a newer one with it."""
    outbox.put(step(1), b"", [LINK])
    late = outbox.next(LINK)
    assert late is not None
    outbox.done(LINK, late)
    outbox.put(step(2), b"", [LINK])
    outbox.done(LINK, late)
    assert drain(outbox) == ["flight-2/0"]


def test_a_full_outbox_sheds_pictures_then_changes_then_the_oldest(
    outbox: Outbox, step: Callable[..., Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shed is counted, and beginnings are the last to go."""
    monkeypatch.setattr(module, "MAX_WAITING", 4)
    monkeypatch.setattr(module, "MAX_THUMBNAILS", 1)
    kept = [
        outbox.put(step(1), b"jpeg", [LINK]),
        outbox.put(step(2), b"jpeg", [LINK]),
        outbox.put(step(2, "change", 1), b"", [LINK]),
        outbox.put(step(3), b"", [LINK]),
        outbox.put(step(4), b"", [LINK]),
        outbox.put(step(5), b"", [LINK]),
    ]
    assert [one[LINK].shed for one in kept] == [0, 1, 0, 1, 1, 1]
    assert [one[LINK].added for one in kept] == [2, 2, 1, 1, 1, 1]
    assert drain(outbox) == ["flight-2/0", "flight-3/0", "flight-4/0", "flight-5/0"]
    assert rows(outbox.path) == 0


def test_overtaken_changes_are_known(outbox: Outbox, step: Callable[..., Event]) -> None:
    """A change is overtaken once a later step of its event waits for the same link."""
    outbox.put(step(1, "change", 1), b"", [LINK, "b"])
    change = outbox.next(LINK)
    assert change is not None
    assert not outbox.overtaken(LINK, change)
    outbox.put(step(1, "end", 2), b"", ["b"])
    assert not outbox.overtaken(LINK, change)
    assert outbox.overtaken("b", change)


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """What put had taken is there after a process ended without closing anything."""
    code = (
        "import os, sys; from pathlib import Path; from overflight.runtime.event import Event;"
        "from overflight.runtime.links.outbox import Outbox;"
        "o = Outbox(Path(sys.argv[1]));"
        "[o.put(Event(f'f-{i}', 'begin', 'x', 1, 1, 1, 0.5), b'', ['a']) for i in range(50)];"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "o.sqlite"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == -9
    again = Outbox(path)
    assert drain(again, "a") == [f"f-{i}/0" for i in range(50)]
    again.close()


def test_two_flights_do_not_share_an_outbox(tmp_path: Path) -> None:
    """The second is refused, since both would send everything; after the first has ended it is not."""
    first = claim(tmp_path / "o.sqlite")
    with pytest.raises(UsageError, match="another flight sends from this outbox"):
        claim(tmp_path / "o.sqlite")
    first.close()
    claim(tmp_path / "o.sqlite").close()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A file in the way of the directory gives one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OverflightError, match="cannot keep an outbox"):
        Outbox(tmp_path / "file" / "o.sqlite")


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    connection.close()
    return int(count)
