"""Telemetry files made to crash, stall or exhaust their reader: each is refused in one line, soon, in little memory.

Covers: runtime/pose/refusals.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.pose.refusals import KEPT
from overflight.runtime.pose.source import read_track
from overflight.runtime.pose.track import MAX_VALUES, PoseTrack

READ = """
from pathlib import Path
from overflight.runtime.errors import SourceError
from overflight.runtime.pose.source import read_track
try:
    track = read_track(Path(sys.argv[1]))
    print("track", len(track), *track.refused)
except SourceError as error:
    print("refused", error)
"""
CASES = Path(__file__).parents[3] / "shared" / "cases" / "attacks" / "pose-files"


def box(key: bytes, *inner: bytes) -> bytes:
    body = b"".join(inner)
    return struct.pack(">I4s", 8 + len(body), key) + body


def movie(count: int = 1, fixed: int = 0, sizes: bytes = b"", place: int = 0, payload: bytes = b"") -> bytes:
    """Return an MP4 with one GoPro metadata track, as its sample table says."""
    table = box(
        b"stbl",
        box(b"stsd", bytes(8) + struct.pack(">I4s", 16, b"gpmd") + bytes(8)),
        box(b"stts", struct.pack(">IIII", 0, 1, count, 1000)),
        box(b"stsz", struct.pack(">III", 0, fixed, count) + sizes),
        box(b"stsc", struct.pack(">IIIII", 0, 1, 1, count, 1)),
        box(b"stco", struct.pack(">III", 0, 1, place)),
    )
    media = box(b"mdia", box(b"mdhd", struct.pack(">IIIII", 0, 0, 0, 1000, 0)), box(b"minf", table))
    return box(b"moov", box(b"trak", media)) + payload


def item(key: bytes, kind: str, size: int, rows: bytes) -> bytes:
    head = struct.pack(">4sBBH", key, ord(kind) if kind else 0, size, len(rows) // max(1, size))
    return head + rows + bytes(-len(rows) % 4)


def karma(*fixes: tuple[float, float]) -> bytes:
    """Return a Karma's payload with one GLPI row for each fix."""
    rows = b"".join(
        struct.pack(">IiiiihhhH", 1000 * i, round(lat * 1e7), round(lon * 1e7), 100, 50, 0, 0, 0, 0)
        for i, (lat, lon) in enumerate(fixes, start=1)
    )
    scale = struct.pack(">9i", 1000, 10_000_000, 10_000_000, 1000, 1000, 100, 100, 100, 100)
    stream = item(b"TYPE", "c", 1, b"LllllsssS")
    stream += item(b"SCAL", "l", 4, scale) + item(b"GLPI", "?", 28, rows)
    return item(b"DEVC", "", 1, item(b"STRM", "", 1, stream))


def nested(levels: int) -> bytes:
    """Return boxes inside boxes."""
    inner = b""
    for _ in range(levels):
        inner = box(b"trak", inner)
    return box(b"moov", inner)


FILES: dict[str, Callable[[], bytes]] = {
    "latitudes.srt": lambda: b"1\n00:00:00,000 --> 00:00:01,000\n" + b"[latitude: 1.0] " * 16_000,
    "digits.srt": lambda: b"1\n" + b"1" * 100_000,
    "colons.srt": lambda: b"1\n" + b"00:" * 100_000,
    "one-long-subtitle.srt": lambda: b"1\n" + b"[latitude: 1]" * 2_000_000,
    "counters.srt": lambda: b"1\n\n" * 5_000_000,
    "short-header.mp4": lambda: movie()[:100],
    "no-media-header.mp4": lambda: box(b"moov", box(b"trak", box(b"mdia", box(b"mdhd", b""), box(b"minf")))),
    "empty-header.mp4": lambda: movie().replace(struct.pack(">I4s", 28, b"mdhd"), struct.pack(">I4s", 8, b"mdhd")),
    "nested.mp4": lambda: nested(2_000),
    "many-samples.mp4": lambda: movie(count=10_000_000, fixed=1),
    "large-samples.mp4": lambda: movie(count=1000, fixed=1 << 31),
    "overlapping-samples.mp4": lambda: movie(4, 0, struct.pack(">4I", *[1 << 30] * 4)),
    "many-boxes.mp4": lambda: box(b"free") * 1_000_000,
    "newlines.gpx": lambda: b"<gpx><trkpt lat='1' lon='1'><ele>" + b"1\n" * 1_000_000 + b"</ele></trkpt></gpx>",
    "points.gpx": lambda: b"<gpx>" + b"<trkpt/>" * 2_000_000 + b"</gpx>",
    "deep.gpx": lambda: b"<a>" * 1_000_000,
    "rows.csv": lambda: b"lat,lon,t_ms\n" + b"x\n" * 5_000_000,
    "columns.csv": lambda: b"lat,lon,t_ms" + b",a" * 10_000_000,
    "cells.csv": lambda: b"lat,lon,t_ms\n" + b"," * 10_000_000,
    "long-number.csv": lambda: b"lat,lon,t_ms\n" + b"1" * 100_000 + b",1,1\n",
    "late-time.csv": lambda: b"lat,lon,utc_ns\n1,1,1" + b"0" * 40 + b"\n",
    "magic.tlog": lambda: b"\xfd\x00" * 10_000_000,
    "zeros.tlog": lambda: bytes(64 << 20),
    "empty.tlog": lambda: b"",
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_soon_and_in_little_memory(
    name: str, tmp_path: Path, limited: Callable[..., Any]
) -> None:
    """Whatever the file says of itself: one line, no stalled reader, no more memory than about twice the file."""
    if name.endswith(".tlog"):
        pytest.importorskip("pymavlink")
    content = FILES[name]()
    path = tmp_path / name
    path.write_bytes(content)
    ended = limited(READ, str(path))
    assert ended.code == 0, ended.said[-500:]
    assert ended.said.startswith("refused "), ended.said[-500:]
    assert len(ended.said.splitlines()) == 2
    assert ended.peak_mb < 100 + 2.5 * len(content) / 1e6


@pytest.mark.parametrize("path", sorted(CASES.glob("*.*")) or [Path("none")], ids=lambda path: path.name)
def test_the_files_of_the_attack(path: Path, tmp_path: Path, limited: Callable[..., Any]) -> None:
    """The files as they were found."""
    if path.suffix not in {".srt", ".mp4", ".gz"}:
        pytest.skip("not a telemetry file")
    if path.suffix == ".gz":
        import gzip

        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        path = tmp_path / path.stem
    ended = limited(READ, str(path))
    assert ended.code == 0, ended.said[-500:]
    assert ended.said.startswith(("refused ", "track 1 ")), ended.said[-500:]
    assert ended.peak_mb < 100


def test_a_row_without_a_fix_costs_that_row_alone(tmp_path: Path) -> None:
    """Of a Karma's two rows, the one at 0, 0 is named and the other is used."""
    payload = karma((0.0, 0.0), (47.0, 8.0))
    head = len(movie(1, 0, struct.pack(">I", len(payload))))
    path = tmp_path / "karma.mp4"
    path.write_bytes(movie(1, 0, struct.pack(">I", len(payload)), head, payload))
    track = read_track(path)
    assert len(track) == 1
    assert len(track.refused) == 1
    assert "no fix" in track.refused[0]


def test_refused_lines_are_kept_in_full_up_to_a_bound(tmp_path: Path) -> None:
    """The first are named, the rest counted: a damaged file may have millions."""
    path = tmp_path / "bad.csv"
    path.write_text("lat,lon,t_ms\n1,1,0\n" + "x,1,1\n" * 1000)
    track = read_track(path)
    assert len(track.refused) == KEPT + 1
    assert track.refused[-1] == f"{1000 - KEPT} more were refused"


def test_a_track_written_backwards_is_read_forwards(tmp_path: Path) -> None:
    """Rows in any order give the same track."""
    rows = [f"{i / 1000},8,{i}" for i in range(1, 5000)]
    tracks = []
    for name, order in (("forward.csv", rows), ("backward.csv", rows[::-1])):
        path = tmp_path / name
        path.write_text("lat,lon,media_ns\n" + "\n".join(order))
        tracks.append(read_track(path))
    assert tracks[0].times_ns == tracks[1].times_ns
    assert tracks[0].at(2500) == tracks[1].at(2500)


def test_a_live_track_drops_its_oldest_half_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of messages never stops the autopilot's thread."""
    from overflight.runtime.pose.record import Pose

    assert MAX_VALUES == 250_000
    monkeypatch.setattr("overflight.runtime.pose.track.MAX_VALUES", 10)
    live, file = PoseTrack("monotonic", keep_ns=1 << 60), PoseTrack("media")
    for i in range(25):
        live.add(i, Pose(utc_ns=0, lat_deg=1.0, lon_deg=1.0))
    assert live.times_ns[-1] == 24
    assert len(live) <= 10
    with pytest.raises(SourceError, match="more than 10 values"):
        for i in range(25):
            file.add(i, Pose(utc_ns=0, lat_deg=1.0, lon_deg=1.0))


@pytest.mark.parametrize("suffix", [".srt", ".csv", ".gpx", ".mp4", ".tlog"])
def test_what_is_not_a_regular_file_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    """A pipe blocks nobody, a dangling link is missing, a folder is named."""
    if suffix == ".tlog":
        pytest.importorskip("pymavlink")
    pipe, link, folder = (tmp_path / f"{name}{suffix}" for name in ("pipe", "link", "folder"))
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")
    folder.mkdir()
    with pytest.raises(SourceError, match="a named pipe"):
        read_track(pipe)
    with pytest.raises(UsageError, match="No such file"):
        read_track(link)
    with pytest.raises(SourceError, match="a folder"):
        read_track(folder)
    with pytest.raises(SourceError, match="a device"):
        device = tmp_path / f"device{suffix}"
        device.symlink_to("/dev/zero")
        read_track(device)
