"""Following: hysteresis, N of M, least duration, cool-down, gaps, and ids that stay."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.decisions.decide import Decision
from overflight.runtime.decisions.event_tracker import EventRules, EventTracker
from overflight.runtime.event import Event
from overflight.runtime.pose.record import Pose
from overflight.runtime.records import Costs, Observation

STEP_NS = 100_000_000


def observation(number: int, captured_ns: int | None = None) -> Observation:
    captured = number * STEP_NS if captured_ns is None else captured_ns
    return Observation(number, captured, 0, None, (), Costs(0, 0, 0), "b", "e", captured_utc_ns=10**18 + captured)


RULES = EventRules(2, 3, cool_down_s=0)


def verdict(score: float | None, still: float | None = None) -> Decision:
    present = {} if score is None else {"fire": score}
    return Decision(None, present, present if still is None else {"fire": still})


def tracked(scores: Sequence[float | None], rules: EventRules = RULES) -> list[tuple[str, int]]:
    follower = EventTracker(rules, "f")
    events = [event for n, score in enumerate(scores) for event in follower.follow(observation(n), verdict(score))]
    return [(event.type, event.frame) for event in events + follower.end()]


def test_a_single_look_is_no_event() -> None:
    """N of M must agree."""
    assert tracked([0.9, None, None, 0.9, None, None]) == []


def test_an_event_begins_and_ends_once() -> None:
    """A miss in between changes nothing; enough of them end it."""
    assert tracked([0.9, 0.9, None, 0.9, None, None, None]) == [("begin", 1), ("end", 4)]


def test_what_lasts_ends_with_the_flight() -> None:
    """No event is left open."""
    assert tracked([0.9, 0.9, 0.9]) == [("begin", 1), ("end", 2)]


def test_a_rising_score_is_told_once() -> None:
    """A tenth more is news, less is not."""
    assert tracked([0.5, 0.5, 0.55, 0.7, 0.71]) == [("begin", 1), ("change", 3), ("end", 4)]


def test_a_begun_event_needs_less_to_last() -> None:
    """Between the thresholds it goes on, and does not begin."""
    follower = EventTracker(EventRules(2, 3, cool_down_s=0), "f")
    script = [verdict(None, 0.4)] * 4 + [verdict(0.9)] * 2 + [verdict(None, 0.4)] * 4
    kinds = [event.type for n, seen in enumerate(script) for event in follower.follow(observation(n), seen)]
    assert kinds == ["begin"]


def test_a_least_duration_holds_back_short_runs() -> None:
    """Ten looks a second: half a second is five of them later."""
    assert tracked([0.9] * 8, EventRules(2, 3, least_s=0.5, cool_down_s=0))[0] == ("begin", 5)


def test_a_cool_down_keeps_one_thing_from_ringing_twice() -> None:
    """After its end a label stays silent for a while."""
    scores = [0.9, 0.9, None, None, 0.9, 0.9, 0.9]
    assert [kind for kind, _ in tracked(scores)] == ["begin", "end", "begin", "end"]
    assert [kind for kind, _ in tracked(scores, EventRules(2, 3, cool_down_s=5))] == ["begin", "end"]


def test_a_long_gap_ends_what_was_seen_before_it() -> None:
    """Nothing is known about a camera that was away."""
    follower = EventTracker(EventRules(1, 1), "f")
    first = [event for n in range(3) for event in follower.follow(observation(n), verdict(0.9))]
    later = follower.follow(observation(3, 60 * 10**9), verdict(0.9))
    assert [event.type for event in first + later] == ["begin", "end", "begin"]
    assert later[0].frame == 2
    assert later[0].id != later[1].id


def still(number: int, seconds: float | None, captured_s: float) -> Observation:
    utc = None if seconds is None else 10**18 + round(seconds * 1e9)
    name = f"DJI_{number}.JPG"
    return Observation(
        number, round(captured_s * 1e9), 0, None, (), Costs(0, 0, 0), "b", "e", captured_utc_ns=utc, name=name
    )


def test_a_recording_is_timed_by_its_own_clock() -> None:
    """How fast the machine was changes nothing: same frames, same events, and no time of day is made up."""

    def run(speed: float) -> list[Event]:
        follower = EventTracker(EventRules(2, 3, least_s=0.5, cool_down_s=1.0), "f")
        script = [0.9] * 20 + [None] * 8 + [0.9] * 20
        events: list[Event] = []
        for n, score in enumerate(script):
            captured = round(n * 1e9 * speed)
            seen = Observation(n, captured, 0, None, (), Costs(0, 0, 0), "b", "e", media_ns=n * STEP_NS)
            events += follower.follow(seen, verdict(score))
        return events + follower.end()

    fast, slow = run(0.001), run(30.0)
    assert fast == slow
    assert [event.type for event in fast] == ["begin", "end", "begin", "end"]
    begin, end = fast[:2]
    assert (begin.started_frame, begin.frame, begin.started_media_ns, begin.media_ns) == (0, 5, 0, 5 * STEP_NS)
    assert (begin.utc_ns, begin.started_utc_ns) == (None, None)
    assert (end.started_frame, end.lasted_ns) == (0, end.media_ns)


def test_stills_are_timed_by_their_exif() -> None:
    """A survey's seven seconds between stills are no gap, ten minutes are, whatever the time of processing."""
    follower = EventTracker(EventRules(2, 3, cool_down_s=0), "f")
    seconds = [0, 7, 14, 21, 28, 628, 635]
    events = [e for n, s in enumerate(seconds) for e in follower.follow(still(n, s, n * 0.001), verdict(0.9))]
    assert [(event.type, event.frame) for event in events] == [("begin", 1), ("end", 4), ("begin", 6)]
    assert (events[1].utc_ns, events[1].lasted_ns) == (10**18 + 28 * 10**9, 28 * 10**9)


def test_stills_without_a_time_are_counted_only() -> None:
    """No duration, cool-down or gap can be measured, so none is applied, and none is claimed."""
    follower = EventTracker(EventRules(2, 3, least_s=5, cool_down_s=9), "f")
    events = [e for n in range(4) for e in follower.follow(still(n, None, n * 100.0), verdict(0.9))]
    assert [(event.type, event.frame, event.utc_ns, event.lasted_ns) for event in events] == [("begin", 1, None, None)]
    raw = Observation(1, 10**12, 0, None, (), Costs(0, 0, 0), "b", "e")  # a raw video stream in a file has no clock
    assert (raw.moment_ns, raw.utc_ns) == (None, None)


def test_the_time_of_day_comes_from_telemetry_where_the_source_has_none() -> None:
    """The same time that the observation's geographic features show."""
    follower = EventTracker(EventRules(1, 1), "f")
    pose = Pose(utc_ns=15 * 10**17, lat_deg=1.0, lon_deg=2.0)
    seen = Observation(3, 0, 0, None, (), Costs(0, 0, 0), "b", "e", media_ns=5, pose=pose)
    (event,) = follower.follow(seen, verdict(0.9))
    assert event.utc_ns == event.started_utc_ns == 15 * 10**17


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=60), st.integers(1, 4), st.integers(0, 3))
def test_every_event_has_one_life(scores: list[float | None], hits: int, spare: int) -> None:
    """Whatever is seen: begin, changes, end, in sequence, one id each, never two at once."""
    follower = EventTracker(EventRules(hits, hits + spare, cool_down_s=0), "f")
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


def test_an_event_keeps_the_group_that_it_began_with() -> None:
    """A bank without groups takes over in flight; the event is still the same one."""
    follower = EventTracker(RULES, "f")
    shown = Decision("fire", {"fire": 0.9}, {"fire": 0.9}, {"fire": "hazards"})
    events = [event for n in range(2) for event in follower.follow(observation(n), shown)]
    events += [event for n in range(2, 6) for event in follower.follow(observation(n), verdict(None))]
    assert [(event.type, event.group) for event in events] == [("begin", "hazards"), ("end", "hazards")]
