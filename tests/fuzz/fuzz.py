"""Fuzzing a door: mutated inputs for a given time, with faults, longest time and peak memory.

``nice python tests/fuzz/fuzz.py srt gpx --minutes 20`` prints one JSON line for each door. Every fourth input is
traced: one that reaches a new line of the package is mutated further.

With ``--state FOLDER`` a campaign can be interrupted: the doors take turns, each turn in a process of its own, and what
a turn found and kept is there for the next one. ``--table`` prints the sums.

An input that holds native code for more than ``STUCK_S`` ends its turn with the stack of every thread; the input that
was being tried is kept, also when the process is killed. A turn has at most ``MOST_MEMORY`` of address space.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from doors import DOORS, Door  # type: ignore[import-not-found]

SLOW_S = 10.0
STUCK_S = 60.0
MOST_MEMORY = 6 << 30
MOST_BYTES = 65_536
MOST_KEPT = 2_000
_TOKENS = [
    *(b"\0", b"\xff", b"\n", b"[", b"{", b'"', b"-", b"1e999", b"NaN", b"null", b"9" * 20, b"\xed\xa0\x80"),
    *(b"=", b"@", b"://", b"#", b"%00", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"),
]


# Where the input that is being tried lies, so that it is still there when the process is killed.
TRYING = Path(os.environ["OVERFLIGHT_FUZZ_TRYING"]) if "OVERFLIGHT_FUZZ_TRYING" in os.environ else None


class TooSlow(BaseException):
    """An input took more processor time than ``SLOW_S``."""


def mutate(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    """Change an input at a few places."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(8):
            case 0 if data:
                data[place % len(data)] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[place % len(data)] = rng.randrange(256)
            case 2:
                data[place:place] = rng.choice(_TOKENS)
            case 3:
                del data[place : place + rng.choice((1, 2, 4, 16, 256))]
            case 4:
                data[place:place] = data[place : place + rng.randrange(1, 200)] * rng.choice((1, 2, 50))
            case 5:
                at = rng.randrange(len(other) + 1)
                data[place : place + 8] = other[at : at + rng.randrange(1, 64)]
            case 6:
                data[place : place + 4] = rng.choice((b"\0\0\0\1", b"\1\0\0\0", b"\xff\xff\xff\x7f", b"\0\1\0\0"))
            case 7:
                data = data[:place] if rng.random() < 0.2 else data
    return bytes(data[:MOST_BYTES])


class Tracer:
    """The lines of the package that inputs have reached."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        self.fresh = False

    def __call__(self, frame: object, event: str, argument: object) -> object:
        code = frame.f_code  # type: ignore[attr-defined]
        if "overflight" not in code.co_filename and "/runtime/" not in code.co_filename:
            return None
        key = (code.co_filename, frame.f_lineno)  # type: ignore[attr-defined]
        if key not in self.seen:
            self.seen.add(key)
            self.fresh = True
        return self


def attempt(door: Door, data: bytes, folder: Path, faults: Counter[str]) -> None:
    """Give one input to a door, and count what it raised that it may not."""
    if TRYING is not None:
        TRYING.write_bytes(data)
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
    try:
        signal.setitimer(signal.ITIMER_PROF, SLOW_S)  # of processor time: on a busy machine others take their turns
        door.take(data, folder)
    except door.allowed:
        pass
    except TooSlow:
        faults["too slow"] += 1
        keep(folder, data, "slow")
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        name = f"{type(error).__name__} at {place}: {str(error)[:80]}"
        faults[f"{type(error).__name__} at {place}"] += 1
        if faults[f"{type(error).__name__} at {place}"] == 1:
            keep(folder, data, name)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def keep(folder: Path, data: bytes, name: str) -> None:
    """Keep an input that failed, so that it can be tried again."""
    kept = Path(os.environ.get("OVERFLIGHT_FUZZ_KEEP", folder))
    kept.mkdir(parents=True, exist_ok=True)
    safe = "".join(sign if sign.isalnum() else "-" for sign in name)[:80]
    (kept / f"{safe}-{len(data)}").write_bytes(data)


def fuzz(name: str, seconds: float, seed: int, kept: Path | None = None) -> dict[str, object]:
    """Fuzz one door for so long; inputs that reached a new line are kept in a folder, and read from it."""
    door, rng, faults = DOORS[name], random.Random(seed), Counter[str]()
    corpus = list(door.seeds())
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        corpus += [path.read_bytes() for path in sorted(kept.iterdir())[:MOST_KEPT]]
    tracer = Tracer()
    tried, longest_s, began_s = 0, 0.0, time.monotonic()

    def late(*_: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGPROF, late)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        folder = Path(place)
        for data in corpus:
            attempt(door, data, folder, faults)
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while time.monotonic() - began_s < seconds:
            data = mutate(rng.choice(corpus), rng.choice(corpus), rng)
            traced = tried % 4 == 0
            tracer.fresh = False
            if traced:
                sys.settrace(tracer)  # type: ignore[arg-type]
            start_s = time.perf_counter()
            attempt(door, data, folder, faults)
            took_s = time.perf_counter() - start_s
            sys.settrace(None)
            if tracer.fresh and len(corpus) < MOST_KEPT:
                corpus.append(data)
                if kept is not None:
                    (kept / f"{seed:06}-{tried:08}").write_bytes(data)
            longest_s = max(longest_s, 0.0 if traced else took_s)
            tried += 1
    after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "door": name,
        "minutes": round((time.monotonic() - began_s) / 60, 1),
        "inputs": tried,
        "kept": len(corpus),
        "lines": len(tracer.seen),
        "faults": dict(faults),
        "longest_ms": round(longest_s * 1000, 1),
        "peak_mb": after_kb // 1024,
        "grown_mb": (after_kb - before_kb) // 1024,
    }


TURN_MINUTES = 2.0


def take_turns(doors: list[str], minutes: float, state: Path) -> None:
    """Give each door its turn until it had so many minutes, those with the fewest first."""
    state.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OVERFLIGHT_FUZZ_KEEP", str(state / "faults"))
    (state / "faults").mkdir(exist_ok=True)
    while True:
        done = {name: sum(turn["minutes"] for turn in turns(state, name)) for name in doors}
        name = min(doors, key=done.__getitem__)
        if done[name] >= minutes - 0.05:
            return
        seed = 1 + sum(len(turns(state, one)) for one in doors)
        line = take_turn(name, seed, state)
        with (state / "turns.jsonl").open("a") as file:
            file.write(line + "\n")


def take_turn(name: str, seed: int, state: Path) -> str:
    """Fuzz one door in a process of its own; return its line, or one that says how the process ended."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        trying = Path(folder) / "trying"
        arguments = [name, f"--minutes={TURN_MINUTES}", f"--seed={seed}", f"--kept={state}/kept/{name}"]
        ran = subprocess.run(
            [sys.executable, __file__, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OVERFLIGHT_FUZZ_TRYING": str(trying)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY)),
        )
        if ran.returncode == 0 and ran.stdout.strip():
            return ran.stdout.strip().splitlines()[-1]
        at = state / "faults" / f"{name}-ended-{ran.returncode}-{seed}"
        if trying.exists():
            at.write_bytes(trying.read_bytes())
        at.with_suffix(".stack").write_text(ran.stderr)
    nothing: dict[str, object] = {"inputs": 0, "kept": 0, "lines": 0, "longest_ms": 0.0, "peak_mb": 0, "grown_mb": 0}
    ended = {f"ended with {ran.returncode}": 1}  # what it tried is not known
    return json.dumps({"door": name, "minutes": TURN_MINUTES, "faults": ended, **nothing})


def turns(state: Path, door: str) -> list[dict[str, Any]]:
    """Return what was found in a door's turns."""
    path = state / "turns.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["door"] == door]


def table(doors: list[str], state: Path) -> str:
    """Return the sums of every door as a table for the page of promises."""
    rows = ["| door | minutes | inputs | faults found | longest input | peak memory |", "|---|--:|--:|---|--:|--:|"]
    for name in doors:
        if done := turns(state, name):
            faults: Counter[str] = Counter()
            for turn in done:
                faults.update(turn["faults"])
            inputs, minutes = sum(turn["inputs"] for turn in done), sum(turn["minutes"] for turn in done)
            longest_s = max(turn["longest_ms"] for turn in done) / 1000
            peak_mb = max(turn["peak_mb"] for turn in done)
            found = ", ".join(faults) or "0"
            rows.append(f"| {name} | {minutes:.1f} | {inputs:,} | {found} | {longest_s:.2f} s | {peak_mb} MB |")
    return "\n".join(rows)


def main() -> None:
    """Fuzz the doors that were named, or all."""
    logging.disable(logging.CRITICAL)  # tifffile reports each damaged tag
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("doors", nargs="*", choices=[*DOORS, []])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    doors = given.doors or list(DOORS)
    if given.table:
        print(table(doors, given.state))
    elif given.state is not None:
        take_turns(doors, given.minutes, given.state)
    else:
        for name in doors:
            print(json.dumps(fuzz(name, given.minutes * 60, given.seed, given.kept)), flush=True)


if __name__ == "__main__":
    main()
