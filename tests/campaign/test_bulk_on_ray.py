"""Bulk on a real Ray cluster of three processes: rows, a killed worker, a killed driver, a full disk, and resuming.

``pytest -s -m campaign tests/campaign/test_bulk_on_ray.py`` takes about three minutes.

Covers: station/bulk/on_ray.py
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overflight.station.bulk import BulkStore

pytestmark = [pytest.mark.campaign, pytest.mark.data]
PICTURES = 160
SHARD_ROWS = "8"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start a head without workers of its own and two nodes of one core each, all on this machine."""
    pytest.importorskip("ray")
    ray = str(Path(sys.executable).with_name("ray"))
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    common = ["--disable-usage-stats", "--object-store-memory", "80000000"]
    address = "127.0.0.1:6399"
    head = ["start", "--head", "--port", "6399", "--num-cpus", "0", "--include-dashboard", "false"]
    _call([ray, *head, "--temp-dir", f"/tmp/ray-{os.getpid()}", *common], environment)
    for _ in range(2):
        _call([ray, "start", "--address", address, "--num-cpus", "1", *common], environment)
    assert len(_processes("raylet/raylet")) >= 3
    yield address
    _call([ray, "stop", "--force"], environment)
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


def _call(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def pictures(imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of real drone pictures, copied under many names."""
    folder = tmp_path_factory.mktemp("pictures")
    found = sorted((imagery / "uav_brighton_beach").glob("DJI*.JPG"))
    for number in range(PICTURES):
        shutil.copy(found[number % len(found)], folder / f"{number:04}.jpg")
    return folder


@pytest.fixture(scope="module")
def local(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the rows of the local mode."""
    out = tmp_path_factory.mktemp("local") / "store"
    done = bulk(pictures, out, "--workers", "2")
    assert done.returncode == 0, done.stderr
    return files(out)


def bulk(pictures: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(pictures, out, *more), capture_output=True, text=True, check=False, timeout=600)


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "overflight",
        "bulk",
        str(pictures),
        "--out",
        str(out),
        "--shard-rows",
        SHARD_ROWS,
        *more,
    ]


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "rows").glob("*.parquet"))}


def wait_for(out: Path, shards: int, child: subprocess.Popen[bytes]) -> None:
    while child.poll() is None and len(list(out.glob("manifests/*.json"))) < shards:
        time.sleep(0.05)


def _processes(pattern: str) -> list[int]:
    """Return the processes whose command line matches."""
    return [
        int(one) for one in subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False).stdout.split()
    ]


def rates(out: Path, wall_s: float) -> str:
    records = list(BulkStore(out).records())
    rows, cpu_s = sum(one.rows for one in records), sum(one.costs.cpu_s for one in records)
    return f"{rows} rows in {wall_s:.1f} s, {rows / cpu_s:.1f} a CPU second of the workers"


def test_rows_are_those_of_the_local_mode(
    cluster: str, pictures: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    """Byte for byte."""
    began = time.monotonic()
    done = bulk(pictures, tmp_path / "ray", "--ray", cluster, "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "ray") == local
    print(f"\ntwo Ray workers: {rates(tmp_path / 'ray', time.monotonic() - began)}")


def test_a_killed_worker_changes_nothing(cluster: str, pictures: Path, local: dict[str, bytes], tmp_path: Path) -> None:
    """Three workers killed while they run a shard."""
    out = tmp_path / "ray"
    child = subprocess.Popen(command(pictures, out, "--ray", cluster, "--threads", "1"), stderr=subprocess.DEVNULL)
    killed = 0
    while child.poll() is None and killed < 3:
        wait_for(out, 2 * killed + 1, child)
        for worker in _processes("^ray::_work")[:1]:  # one that runs a shard now
            os.kill(worker, signal.SIGKILL)
            killed += 1
        time.sleep(0.3)
    assert child.wait(300) == 0
    assert killed == 3
    assert files(out) == local


def test_a_killed_driver_resumes(cluster: str, pictures: Path, local: dict[str, bytes], tmp_path: Path) -> None:
    """Killed twice; nothing that is done is done again."""
    out = tmp_path / "ray"
    for kill in (3, 9):
        child = subprocess.Popen(command(pictures, out, "--ray", cluster, "--threads", "1"), stderr=subprocess.DEVNULL)
        wait_for(out, kill, child)
        child.kill()
        child.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*.parquet")}
    assert 0 < len(before) < len(local)
    done = bulk(pictures, out, "--ray", cluster, "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert files(out) == local
    after = {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*.parquet")}
    again = [name for name in before if before[name] != after[name]]
    print(f"\nkilled drivers: {len(before)} of {len(local)} shards were done before the third run, {len(again)} again")


def test_a_full_disk_stops_and_resumes(cluster: str, pictures: Path, local: dict[str, bytes], tmp_path: Path) -> None:
    """A real file system of 150 kB; one line, exit code 1, and after making room the rows of a quiet run."""
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150k", "test", out], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        done = bulk(pictures, out, "--ray", cluster, "--threads", "1")
        assert done.returncode == 1
        assert "No space left" in done.stderr and "Traceback" not in done.stderr
        print(f"\nfull disk: {len(files(out))} shards done; {done.stderr.strip().splitlines()[-1]}")
        subprocess.run(["mount", "-o", "remount,size=20m", out], check=True)
        assert bulk(pictures, out, "--ray", cluster, "--threads", "1").returncode == 0
        assert files(out) == local
    finally:
        subprocess.run(["umount", "-l", out], check=False)


def test_one_worker_and_two(cluster: str, pictures: Path, local: dict[str, bytes], tmp_path: Path) -> None:
    """Rows a CPU second: local with one and two workers, Ray with two. Two cores cannot show scaling."""
    for workers in ("1", "2"):
        began = time.monotonic()
        assert bulk(pictures, tmp_path / workers, "--workers", workers, "--threads", "1").returncode == 0
        assert files(tmp_path / workers) == local
        print(f"\nlocal, {workers} workers: {rates(tmp_path / workers, time.monotonic() - began)}")


def test_no_cluster_is_a_missing_part(pictures: Path, tmp_path: Path) -> None:
    """Exit code 3, in one line."""
    pytest.importorskip("ray")
    done = bulk(pictures, tmp_path / "none", "--ray", "127.0.0.1:1")
    assert done.returncode == 3
    assert "no Ray cluster answers" in done.stderr
