"""The terms of a signature: what is written is read back, and every limit is a limit."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.runtime.errors import SignatureError, UsageError
from overflight.runtime.signatures.terms import Terms


def test_terms_survive_their_comment() -> None:
    """Counter, target, expiry, series and time come back as they were."""
    terms = Terms.make(counter=5, target="survey-*", expires="30d", series="night")
    assert Terms.parse(terms.comment("my bank\t.safetensors"), source="x") == msgspec.structs.replace(
        terms, expires_utc_s=float(int(terms.expires_utc_s or 0))
    )
    forever = Terms.make(counter=5, expires="never")
    assert Terms.parse(forever.comment("x"), source="x").expires_utc_s is None


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("30d", 720), ("8w", 1344)])
def test_durations(text: str, hours: int) -> None:
    """Hours, days and weeks from now."""
    assert Terms.make(expires=text).expires_utc_s == pytest.approx(time.time() + hours * 3600, abs=60)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires": "soon"},
        {"expires": "2027-13-01"},
        {"expires": "999999w"},
        {"target": "two words"},
        {"target": "tab\t"},
        {"series": ""},
        {"counter": -1},
        {"counter": 1 << 63},
    ],
)
def test_wrong_terms_are_usage_errors(wrong: dict[str, object]) -> None:
    """Nothing that could not be read again is signed."""
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))}"):
        Terms.make(**wrong)  # type: ignore[arg-type]


def test_the_tools_own_comment_counts_by_its_time() -> None:
    """minisign names no counter; without any time an old copy could be replayed."""
    assert Terms.parse("timestamp:1764091844\tfile:bank\thashed", source="x").counter == 1764091844000
    for comment in ("signature from minisign secret key", "file:x", ""):
        with pytest.raises(SignatureError, match="neither counter nor timestamp"):
            Terms.parse(comment, source="x")
    with pytest.raises(SignatureError, match="twice"):
        Terms.parse("counter:1\tcounter:2", source="x")


def test_target_and_expiry() -> None:
    """A name or a pattern; a clock that is behind counts as the time of signing."""
    terms = Terms.make(target="survey-*", expires="1h")
    terms.check_target(frozenset({"jetson", "survey-7"}), source="x")
    with pytest.raises(SignatureError, match="signed for survey-\\*, this machine is rescue-1"):
        terms.check_target(frozenset({"rescue-1"}), source="x")
    terms.check_expiry(source="x")
    old = Terms(1, expires_utc_s=time.time() - 1)
    with pytest.raises(SignatureError, match="expired at"):
        old.check_expiry(source="x")
    from_the_future = Terms(1, expires_utc_s=5e9, signed_utc_s=6e9)
    with pytest.raises(SignatureError, match="expired at"):
        from_the_future.check_expiry(source="x")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["counter:", "timestamp:", "expires:", "target:", "1", "\t", ":", "9" * 30, "-1"])))
def test_any_comment_is_terms_or_an_error(parts: list[str]) -> None:
    """Nothing but SignatureError comes out."""
    try:
        terms = Terms.parse("".join(parts), source="x")
    except SignatureError:
        return
    assert 0 <= terms.counter < 1 << 63
