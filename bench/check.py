"""Checks of records against budgets, and of the hot functions of two commits against each other, in turns."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from overflight.bench.engine import Turn
from overflight.bench.frames import FILM, take_frames
from overflight.bench.host import make_row, new_run
from overflight.bench.peers.hot import REPEATS
from overflight.bench.sample import SamplingPlan, take_turns
from overflight.bench.spread import Ratio, Spread, judge, ratio, say
from overflight.bench.subject import Job, Subject
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.runtime.toml_input import decode_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overflight.bench.row import Row
    from overflight.bench.sample import Report

BUDGETS = Path(__file__).with_name("budgets.toml")
HOT = tuple(name for name in REPEATS if name != "baseline")
_LOOKS = 5  # each may err with 1 %, so that a false alarm stays below 1 in 20

Outcome = Literal["kept", "within noise", "missed", "goal missed", "not measured", "not judged"]


class Finding(msgspec.Struct, frozen=True):
    """One budget or comparison: what was asked, what was found, and how it came out."""

    what: str
    asked: str
    found: str
    outcome: Outcome


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"device": "class"}):
    """A time or a size that a class of devices may not exceed.

    ``when`` names settings that a record must have; ``weights_below_mb`` keeps to bundles of small image graphs. A
    ``goal`` is reported, but missing it does not fail the check.
    """

    measure: str
    subject: str
    device: str = ""
    when: dict[str, float] = {}
    weights_below_mb: float | None = None
    goal: bool = False
    median_ms: float | None = None
    worst_ms: float | None = None
    worst_mb: float | None = None


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ratio between two subjects of one run that holds everywhere."""

    measure: str
    subject: str
    over: str
    median: float
    goal: bool = False


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least share of its measured floor that a subject must reach: 1 is nothing but perfect products."""

    measure: str
    subject: str
    least: float
    goal: bool = False


class _Slower(msgspec.Struct, frozen=True):
    tolerance: float


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``budgets.toml`` says."""

    slower: _Slower
    hot: dict[str, float] = {}
    ratio: tuple[Bound, ...] = ()
    share: tuple[Share, ...] = ()
    limit: tuple[Limit, ...] = ()


def read_budgets(path: Path = BUDGETS) -> Budgets:
    """Read a budget file. Raises UsageError for another kind of file."""
    try:
        found: Budgets = msgspec.convert(decode_toml(path.read_text(encoding="utf-8")), Budgets)
    except (OSError, ValueError) as error:  # msgspec's and toml's errors are ValueErrors
        raise UsageError(f"{path}: not a budget file ({error}); see bench/budgets.toml") from error
    return found


def check_records(rows: Sequence[Row], budgets: Budgets) -> list[Finding]:
    """Compare the newest record of each subject with the budgets of the device it was taken on.

    Records of starved subjects are left out; a budget that has no others is not judged.
    """
    sound = [row for row in rows if not row.starved]
    checks = [partial(_check_bound, bound) for bound in budgets.ratio]
    checks += [partial(_check_share, share) for share in budgets.share]
    checks += [partial(_check_limit, limit) for limit in budgets.limit]
    found = []
    for check in checks:
        for finding in check(sound):
            measured = finding.outcome != "not measured" or all(x.outcome == "not measured" for x in check(rows))
            found.append(finding if measured else _unjudged(finding))
    return found


def _unjudged(finding: Finding) -> Finding:
    return Finding(finding.what, finding.asked, "only records of starved subjects", "not judged")


def check_functions(
    bundle: Path,
    against: str,
    plan: SamplingPlan,
    budgets: Budgets,
    *,
    functions: Sequence[str] = (),
    report: Report = lambda stage, share: None,
) -> tuple[list[Finding], list[Row]]:
    """Time the hot functions of this tree and of another, in turns; ``against`` is a commit or a checkout's folder, and
    ``functions`` names some of them where not all are asked for.

    The plan is repeated, five times at most, for those functions whose noise still hides the result. Returns
    a finding per function, and the rows: each ratio lies within its printed range with 99 %.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        other = stack.enter_context(_Tree(against, scratch))
        job = _job(bundle, scratch)
        names = unclear = list(functions or (*HOT, "engine"))
        samples: dict[str, list[int]] = {f"{name} {tree}": [] for name in names for tree in ("here", "there")}
        for _ in range(_LOOKS):
            if not unclear:
                break
            # New processes for each look: where code and buffers lie in memory is noise too.
            with closing(Subject(job)) as here, closing(Subject(job, source=other)) as there:
                calls = {
                    f"{name} {tree}": Turn(subject, "embed" if name == "engine" else name)
                    for name in unclear
                    for tree, subject in (("here", here), ("there", there))
                }
                for title, taken in take_turns(calls, plan, report).items():
                    samples[title] += taken
            unclear = [name for name in unclear if judge(_over(name, samples), budgets.slower.tolerance) == "unclear"]
    findings = [_compared(name, _over(name, samples), against, budgets.slower.tolerance) for name in names]
    run = new_run()
    rows = [
        make_row(
            "hot",
            title,
            taken,
            run=run,
            included="one turn, by the thread's own clock: see bench/peers/hot.py",
            settings={"against": against},
        )
        for title, taken in samples.items()
    ]
    return findings, rows


class _Tree:
    """The source folder of another commit or checkout, copied to a temporary folder, with this commit's bench in it."""

    def __init__(self, against: str, scratch: Path) -> None:
        self._tree = scratch / "tree"
        root = Path(__file__).resolve().parent.parent
        if Path(against).is_dir():
            shutil.copytree(
                against, self._tree, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv", "bundle", "default")
            )
        else:
            self._tree.mkdir()
            archive = subprocess.run(
                ["git", "archive", against, "src", "runtime", "jetson", "export", "station"],
                cwd=root,
                capture_output=True,
                check=False,
            )
            if archive.returncode:
                reason = archive.stderr.decode().strip().splitlines()[-1:]
                raise UsageError(f"--against {against}: neither a folder nor a commit here ({' '.join(reason)})")
            subprocess.run(["tar", "-x", "-C", self._tree], input=archive.stdout, check=True)
        # The same measuring code on both sides, so that only the measured code differs.
        shutil.rmtree(self._tree / "bench", ignore_errors=True)
        shutil.copytree(root / "bench", self._tree / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))

    def __enter__(self) -> Path:
        return self._tree / "src"

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._tree, ignore_errors=True)


def _job(bundle: Path, scratch: Path) -> Job:
    frames = take_frames(str(FILM), Bundle.open(bundle), 1)
    np.save(scratch / "frames.npy", frames.resized)
    np.save(scratch / "pictures.npy", frames.pictures)
    at = str(scratch)
    return Job("hot", "", "", str(bundle.resolve()), f"{at}/frames.npy", f"{at}/pictures.npy", (), 1, at)


def _over(name: str, samples: dict[str, list[int]]) -> Ratio:
    return ratio(samples[f"{name} here"], samples[f"{name} there"])


def _compared(name: str, found: Ratio, against: str, tolerance: float) -> Finding:
    asked = f"at most {1 + tolerance:.2f} of {against[:24]}"
    return Finding(name, asked, str(found), _beyond_noise(found, 1 + tolerance))


def _check_bound(bound: Bound, rows: Sequence[Row]) -> Iterator[Finding]:
    """Judge the newest run of each model and class of device."""
    what = f"{bound.measure}: {bound.subject} over {bound.over}"
    asked = f"median ≤ {bound.median:g}"
    runs = {(row.run, row.subject): row for row in rows if row.measure == bound.measure and row.samples}
    newest: dict[tuple[str, str], tuple[Row, Row]] = {}
    for (run, subject), row in runs.items():
        if subject == bound.subject and (run, bound.over) in runs:
            newest[row.model, row.host.kind] = (row, runs[run, bound.over])
    if not newest:
        yield Finding(what, asked, "no record", "not measured")
    for (model, _), (ours, over) in newest.items():
        found = ratio(ours.samples, over.samples)
        yield Finding(f"{what} ({model})", asked, str(found), _beyond_noise(found, bound.median, bound.goal))


def _check_share(share: Share, rows: Sequence[Row]) -> Iterator[Finding]:
    what, asked = f"{share.measure}: {share.subject}, of the floor", f"at least {share.least:.0%}"
    named = [row for row in rows if (row.measure, row.subject) == (share.measure, share.subject)]
    newest = {row.model: row.floor for row in named if row.floor is not None}
    if not newest:
        yield Finding(what, asked, "no record", "not measured")
    for model, floor in newest.items():
        outcome = _outcome(floor.share < share.least, share.goal) if floor.sound else "not judged"
        yield Finding(f"{what} ({model})", asked, str(floor), outcome)


def _check_limit(limit: Limit, rows: Sequence[Row]) -> Iterator[Finding]:
    """Judge the newest record of each model and class of device."""
    newest = {(row.model, row.host.kind): row for row in rows if _fits(limit, row)}
    what = " ".join([f"{limit.measure}: {limit.subject}", *(f"{key}={value:g}" for key, value in limit.when.items())])
    if not newest:
        yield Finding(what, "a record", "none", "not measured")
    for row in newest.values():
        spread = Spread.of(row.samples)
        asked = {
            "median_ms": (limit.median_ms, spread.p50 / 1e6, "ms"),
            "worst_ms": (limit.worst_ms, spread.p99 / 1e6, "ms"),
            "worst_mb": (limit.worst_mb, spread.worst / 1e6, "MB"),
        }
        named = f"{what} ({row.model})" if row.model else what
        for name, (most, got, unit) in asked.items():
            if most is not None:
                bound = f"{name.split('_')[0]} ≤ {most:g} {unit}"
                yield Finding(named, bound, f"{say(got)} {unit}", _outcome(got > most, limit.goal))


def _beyond_noise(found: Ratio, most: float, goal: bool = False) -> Outcome:
    """An interval that contains the bound proves nothing."""
    return "within noise" if found.low <= most < found.high else _outcome(found.low > most, goal)


def _outcome(missed: bool, goal: bool) -> Outcome:
    return ("goal missed" if goal else "missed") if missed else "kept"


def _fits(limit: Limit, row: Row) -> bool:
    most_mb = limit.weights_below_mb
    small = most_mb is None or float(row.settings.get("weights_mb", 0)) < most_mb
    settings = all(row.settings.get(key) == value for key, value in limit.when.items())
    named = (row.measure, row.subject) == (limit.measure, limit.subject)
    return bool(row.samples) and named and settings and small and row.host.kind.startswith(limit.device)


def failures(findings: Sequence[Finding]) -> list[Finding]:
    """Return what was missed."""
    return [finding for finding in findings if finding.outcome == "missed"]


def table_of(findings: Sequence[Finding]) -> Any:
    """Lay findings out for a terminal."""
    from rich.table import Table

    table = Table("what", "asked", "found", "")
    for finding in findings:
        colour = {"kept": "green", "missed": "red"}.get(finding.outcome, "yellow")
        table.add_row(finding.what, finding.asked, finding.found, f"[{colour}]{finding.outcome}[/]")
    return table
