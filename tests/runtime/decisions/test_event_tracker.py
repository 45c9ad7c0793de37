"""Following: hysteresis, N of M, least duration, cool-down, gaps, and ids that stay."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.decisions.decide import Decision
from overflight.runtime.decisions.event_tracker import EventRules, EventTracker
from overflight.runtime.event import Event
from overflight.runtime.records import Costs, Observation

STEP_NS = 100_000_000


def observation(number: int, captured_ns: int | None = None) -> Observation:
    captured = number * STEP_NS if captured_ns is None else captured_ns
    return Observation(number, captured, 0, None, (), Costs(0, 0, 0), "b", "e", captured_utc_ns=10**18 + captured)


def verdict(score: float | None, still: float | None = None) -> Decision:
    present = {} if score is None else {"fire": score}
    return Decision(None, present, present if still is None else {"fire": still})


def told(scores: Sequence[float | None], rules: EventRules = EventRules(2, 3, cool_down_s=0)) -> list[tuple[str, int]]:  # noqa: B008
    follower = EventTracker(rules, "f", 0)
    events = [event for n, score in enumerate(scores) for event in follower.follow(observation(n), verdict(score))]
    return [(event.type, event.frame) for event in events + follower.end()]


def test_a_single_look_is_no_event() -> None:
    """N of M must agree."""
    assert told([0.9, None, None, 0.9, None, None]) == []


def test_an_event_begins_and_ends_once() -> None:
    """A miss in between changes nothing; enough of them end it."""
    assert told([0.9, 0.9, None, 0.9, None, None, None]) == [("begin", 1), ("end", 4)]


def test_what_lasts_ends_with_the_flight() -> None:
    """No event is left open."""
    assert told([0.9, 0.9, 0.9]) == [("begin", 1), ("end", 2)]


def test_a_rising_score_is_told_once() -> None:
    """A tenth more is news, less is not."""
    assert told([0.5, 0.5, 0.55, 0.7, 0.71]) == [("begin", 1), ("change", 3), ("end", 4)]


def test_a_begun_event_needs_less_to_last() -> None:
    """Between the thresholds it goes on, and does not begin."""
    follower = EventTracker(EventRules(2, 3, cool_down_s=0), "f", 0)
    script = [verdict(None, 0.4)] * 4 + [verdict(0.9)] * 2 + [verdict(None, 0.4)] * 4
    kinds = [event.type for n, seen in enumerate(script) for event in follower.follow(observation(n), seen)]
    assert kinds == ["begin"]


def test_a_least_duration_holds_back_short_runs() -> None:
    """Ten looks a second: half a second is five of them later."""
    assert told([0.9] * 8, EventRules(2, 3, least_s=0.5, cool_down_s=0))[0] == ("begin", 5)


def test_a_cool_down_keeps_one_thing_from_ringing_twice() -> None:
    """After its end a label stays silent for a while."""
    scores = [0.9, 0.9, None, None, 0.9, 0.9, 0.9]
    assert [kind for kind, _ in told(scores)] == ["begin", "end", "begin", "end"]
    assert [kind for kind, _ in told(scores, EventRules(2, 3, cool_down_s=5))] == ["begin", "end"]


def test_a_long_gap_ends_what_was_seen_before_it() -> None:
    """A camera that was away cannot vouch for what lasted meanwhile."""
    follower = EventTracker(EventRules(1, 1), "f", 0)
    first = follower.follow(observation(0), verdict(0.9))
    later = follower.follow(observation(1, 60 * 10**9), verdict(0.9))
    assert [event.type for event in first + later] == ["begin", "end", "begin"]
    assert later[0].frame == 0
    assert later[0].id != later[1].id


def test_a_recording_without_a_clock_counts_from_the_flights_start() -> None:
    """Times in events are never missing."""
    follower = EventTracker(EventRules(1, 1), "f", 7 * 10**18)
    seen = Observation(3, 0, 0, None, (), Costs(0, 0, 0), "b", "e", media_ns=5)
    (event,) = follower.follow(seen, verdict(0.9))
    assert event.utc_ns == 7 * 10**18 + 5


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=60), st.integers(1, 4), st.integers(0, 3))
def test_every_event_has_one_life(scores: list[float | None], hits: int, spare: int) -> None:
    """Whatever is seen: begin, changes, end, in sequence, one id each, never two at once."""
    follower = EventTracker(EventRules(hits, hits + spare, cool_down_s=0), "f", 0)
    events: list[Event] = []
    for number, score in enumerate(scores):
        events += follower.follow(observation(number), verdict(score))
    events += follower.end()
    lives: dict[str, list[Event]] = {}
    for event in events:
        lives.setdefault(event.id, []).append(event)
    for life in lives.values():
        assert [event.sequence for event in life] == list(range(len(life)))
        assert (life[0].type, life[-1].type) == ("begin", "end")
        assert all(event.type == "change" for event in life[1:-1])
    assert [event.type for event in events if event.type != "change"] == ["begin", "end"] * len(lives)
