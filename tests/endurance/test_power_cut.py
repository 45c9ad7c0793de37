"""Power cuts: killed at random moments, on a full disk and on one that turned read-only, a flight can be read.

``OVERFLIGHT_ENDURANCE_KILLS=50 pytest -m slow -s tests/endurance/test_power_cut.py`` kills fifty times. ``kill -9``
is what a program can show; that the file system keeps what was synced is the kernel's promise.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overflight.runtime import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.flight.directory import JOURNAL, read_record
from overflight.runtime.flight.journal_reader import read_embeddings, read_observations
from overflight.runtime.records import Observation

pytest.importorskip("onnxruntime")
KILLS = int(os.environ.get("OVERFLIGHT_ENDURANCE_KILLS", "3"))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> list[str]:
    colour_bank.save(tmp_path / "bank.safetensors")
    return ["--bundle", str(colour_bundle.directory), "--labels", str(tmp_path / "bank.safetensors")]


def start(out: Path, files: list[str], source: str = "test://?fps=100&size=64x48") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "overflight", "run", source, "--out", str(out), "--json", *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def watch(child: subprocess.Popen[bytes], seconds: float) -> tuple[int, int]:
    """Read what the flight says it observed for so long after its first word; return its last frame and its stamp."""
    import msgspec

    assert child.stdout is not None
    line, until = b"", None
    while until is None or time.monotonic() < until:
        read = child.stdout.readline()
        if not read:
            break
        line = read
        until = until or time.monotonic() + seconds
    last = msgspec.json.decode(line)
    return int(last["frame"]), int(last["captured_ns"])


@pytest.mark.slow
def test_killed_at_any_moment_a_flight_lacks_less_than_its_last_second(files: list[str], tmp_path: Path) -> None:
    """The journal opens every time, whole up to its end, and what is missing is counted."""
    rng, lost_ms, lost_frames = random.Random(1), [], []
    for number in range(KILLS):
        out = tmp_path / str(number)
        child = start(out, files)
        _, _ = watch(child, rng.uniform(0.0, 3.0))
        killed_ns = time.monotonic_ns()
        child.kill()
        rest, _ = child.communicate(timeout=20)
        seen = [observation.frame for observation in read_observations(out / JOURNAL)]
        stamps = [observation.captured_ns for observation in read_observations(out / JOURNAL)]
        assert seen == sorted(set(seen))
        assert len(read_embeddings(out / JOURNAL)[0]) == len(seen)
        assert read_record(out).ended_utc_ns is None
        began_ns = min(stamps, default=killed_ns)
        lost_ms.append((killed_ns - (stamps[-1] if stamps else began_ns)) / 1e6)
        reported = [line for line in rest.splitlines() if line.endswith(b"}")]
        lost_frames.append(
            len(reported) and int(reported[-1].split(b'"frame":')[1].split(b",")[0]) - (seen[-1] if seen else -1)
        )
    print(f"\n{KILLS} kills at 100 fps: every journal opened")
    print(
        f"lost p50 {sorted(lost_ms)[KILLS // 2]:.0f} ms, most {max(lost_ms):.0f} ms; {sum(lost_frames)} frames in all"
    )
    assert max(lost_ms) < 1000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file of 96 MB as a disk that turns read-only when its file system finds an error."""
    image, path = tmp_path / "disk.img", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(96 << 20)
    for command in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop,errors=remount-ro", str(image), str(path)]):
        if shutil.which(command[0]) is None or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("needs the right to mount a file as a disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def break_disk(path: Path) -> bool:
    """Make the kernel find an error in the file system, as a worn card does; False where it cannot be asked to."""
    device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(path) in line)
    try:
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("found")
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_a_disk_that_fills_in_flight_costs_rows_and_nothing_else(files: list[str], small_disk: Path) -> None:
    """The flight goes on to its end, counts what was not kept, and what was kept before can be read."""
    out = small_disk / "flight"
    child = start(out, files, "test://?frames=700&fps=100&size=64x48")
    watch(child, 2.0)
    ballast = small_disk / "ballast"
    try:
        with ballast.open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
    except OSError:
        pass
    _, errors = child.communicate(timeout=60)
    seen = [observation.frame for observation in read_observations(out / JOURNAL)]
    print(f"\nfull disk: exit {child.returncode}, {len(seen)} observations kept; {errors.decode().splitlines()[-1:]}")
    assert seen == sorted(set(seen))
    assert len(seen) > 10
    assert child.returncode in {0, 1}
    assert b"Traceback" not in errors


@pytest.mark.slow
def test_a_disk_that_turns_read_only_costs_rows_and_nothing_else(
    files: list[str], small_disk: Path, tmp_path: Path
) -> None:
    """As a file system does that found an error."""
    out = small_disk / "flight"
    child = start(out, files, "test://?frames=500&fps=100&size=64x48")
    watch(child, 2.0)
    if not break_disk(small_disk):
        child.kill()
        child.communicate()
        pytest.skip("the kernel cannot be asked for an error")
    _, errors = child.communicate(timeout=60)
    seen = [observation.frame for observation in _copied(out, tmp_path)]
    print(
        f"\nread-only disk: exit {child.returncode}, {len(seen)} observations kept; {errors.decode().splitlines()[-1:]}"
    )
    assert seen == sorted(set(seen))
    assert len(seen) > 10
    assert child.returncode in {0, 1}
    assert b"Traceback" not in errors


def test_a_flight_does_not_start_on_a_read_only_disk(files: list[str], small_disk: Path) -> None:
    """One line says where nothing can be written; nobody flies without a record."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    child = start(small_disk / "flight", files, "test://?frames=5&fps=0&size=64x48")
    _, errors = child.communicate(timeout=60)
    lines = errors.decode().splitlines()
    print(lines)
    assert child.returncode == 1
    assert str(small_disk) in lines[-1]
    assert "read-only" in lines[-1].lower()
    assert b"Traceback" not in errors


def _copied(out: Path, tmp_path: Path) -> Iterator[Observation]:
    """Read a journal as one does with the card of a broken board: from a copy, since SQLite wants to fold its log."""
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    yield from read_observations(copy / JOURNAL)
