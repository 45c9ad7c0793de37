"""Makes the corpus of recordings again, with the ffmpeg program; fetches nothing.

    python tests/corpus/video/make.py [FOLDER]

Every film is 100 pictures of 64 x 48 at 25 a second: its left half is red, its right half changes.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import av

HERE = Path(__file__).resolve().parent
FILM = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=4,format=rgb24,drawbox=0:0:32:48:0xC82828:fill"]
TONE = ["-f", "lavfi", "-i", "sine=duration=10"]
SMALL = ["-c:v", "libx264", "-g", "10", "-bf", "2", "-x264-params", "keyint=10:scenecut=0"]
LOSSLESS = ["-c:v", "libx264", "-qp", "4", "-g", "10"]


def coded(matrix: str, full: bool) -> list[str]:
    """Convert to a matrix and a range, and say so in the stream."""
    name = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}[matrix]
    spoken = "pc" if full else "tv"
    convert = f"scale=out_color_matrix={matrix}:out_range={spoken},format=yuv444p"
    return ["-vf", convert, "-colorspace", name, "-color_range", spoken, *LOSSLESS]


def ffmpeg(*given: str | Path) -> None:
    """Run ffmpeg, quietly."""
    command = ["ffmpeg", "-y", "-loglevel", "error", "-nostdin", *map(str, given)]
    subprocess.run(command, check=True)


def turn(film: Path, out: Path, degrees: int) -> None:
    """Copy a film with a display matrix, for which ffmpeg's option has changed between its versions."""
    with av.open(str(film)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def make(folder: Path) -> None:
    """Write the corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    for matrix in ("bt601", "bt709", "bt2020"):
        for full in (False, True):
            ffmpeg(*FILM, *coded(matrix, full), folder / f"{matrix}-{'full' if full else 'limited'}.mp4")
    plain = folder / "plain.mp4"
    ffmpeg(*FILM, *SMALL, "-pix_fmt", "yuv420p", plain)
    _containers(folder, plain)
    _streams(folder, plain)
    _damaged(folder, plain)


def _containers(folder: Path, plain: Path) -> None:
    for suffix in ("mkv", "ts", "flv", "mov"):
        ffmpeg("-i", plain, "-c", "copy", folder / f"plain.{suffix}")
    ffmpeg(*FILM, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", folder / "plain.avi")
    ffmpeg(*FILM, "-c:v", "libvpx-vp9", "-b:v", "200k", "-deadline", "realtime", folder / "plain.webm")
    ffmpeg(*FILM, "-c:v", "libvpx-vp9", "-profile:v", "2", "-pix_fmt", "yuv420p10le", "-deadline", "realtime",
           folder / "ten-bit.webm")  # fmt: skip
    ffmpeg(*FILM, "-c:v", "mpeg2video", folder / "plain.mpg")
    ffmpeg(*FILM, "-c:v", "rawvideo", "-pix_fmt", "bgr24", folder / "rgb.avi")
    ffmpeg(*FILM, "-c:v", "ffv1", "-pix_fmt", "yuv420p10le", folder / "ten-bit.mkv")
    ffmpeg(*FILM, *SMALL, "-pix_fmt", "gray", folder / "grey.mp4")
    ffmpeg("-i", plain, "-c", "copy", "-f", "h264", folder / "timed.h264")
    ffmpeg(*FILM, "-c:v", "libx265", "-x265-params", "vui-timing-info=0:log-level=none", "-f", "hevc",
           folder / "untimed.hevc")  # fmt: skip
    ffmpeg("-i", folder / "plain.ts", "-c", "copy", "-output_ts_offset", "10", folder / "starts-late.mkv")
    ffmpeg("-ss", "1.5", "-i", plain, "-c", "copy", folder / "trimmed.mp4")
    ffmpeg(*FILM, *TONE, *SMALL, "-pix_fmt", "yuv420p", "-c:a", "aac", folder / "sound-longer.mkv")
    ffmpeg(*FILM, "-vf", "select=not(mod(n\\,3))", "-fps_mode", "vfr", *SMALL, folder / "variable.mkv")
    raw = (folder / "plain.ts").read_bytes()
    (folder / "joined.ts").write_bytes(raw + raw)


def _streams(folder: Path, plain: Path) -> None:
    cover = folder / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=blue:size=200x200", "-frames:v", "1", cover)
    ffmpeg("-i", plain, "-i", cover, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:1", "attached_pic",
           folder / "cover-behind.mp4")  # fmt: skip
    ffmpeg("-i", cover, "-i", plain, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic",
           folder / "cover-first.mp4")  # fmt: skip
    cover.unlink()
    ffmpeg(*TONE, "-c:a", "aac", folder / "sound-only.mp4")
    ffmpeg(*FILM, "-vf", "setsar=64/45", *SMALL, "-pix_fmt", "yuv420p", folder / "aspect.mp4")
    for degrees in (90, 180, 270):
        turn(plain, folder / f"turned-{degrees}.mp4", degrees)
    for place, number in (("left", 0), ("center", 1), ("topleft", 2)):
        ffmpeg(*FILM, "-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p", "-x264-params", f"chromaloc={number}",
               folder / f"siting-{place}.mp4")  # fmt: skip


def _damaged(folder: Path, plain: Path) -> None:
    for suffix in ("mkv", "ts", "avi"):
        raw = (folder / f"plain.{suffix}").read_bytes()
        if suffix != "ts":
            (folder / f"cut.{suffix}").write_bytes(raw[: len(raw) // 2])
    ffmpeg("-i", plain, "-c", "copy", "-movflags", "faststart", folder / "cut.mp4")
    raw = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(raw[: len(raw) * 2 // 3])
    (folder / "no-index.mp4").write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    chance, transport = random.Random(3), (folder / "plain.ts").read_bytes()
    packets = [transport[at : at + 188] for at in range(0, len(transport), 188)]
    kept = [packet for place, packet in enumerate(packets) if place < 20 or chance.random() > 0.02]
    (folder / "lossy.ts").write_bytes(b"".join(kept))
    larger = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=4"]
    for name, options in {
        "h264.mkv": ["-c:v", "libx264", "-g", "10"],
        "h265.mkv": ["-c:v", "libx265", "-x265-params", "keyint=10:log-level=none"],
        "vp9.mkv": ["-c:v", "libvpx-vp9", "-b:v", "400k", "-g", "10", "-deadline", "realtime"],
        "mjpeg.mkv": ["-c:v", "mjpeg"],
    }.items():
        whole = folder / f"whole-{name}"
        ffmpeg(*larger, "-pix_fmt", "yuvj420p" if name == "mjpeg.mkv" else "yuv420p", *options, whole)
        (folder / f"noise-{name}").write_bytes(_overwritten(whole, head=name == "h265.mkv"))


def _overwritten(film: Path, *, head: bool) -> bytes:
    """Put 16 bytes of noise into 12 of a film's pictures, into what says how they are coded or anywhere behind it."""
    raw, chance = bytearray(film.read_bytes()), random.Random(4)
    with av.open(str(film)) as source:
        packets = [bytes(packet) for packet in source.demux(video=0) if packet.size > 200]
    for packet in chance.sample(packets, 12):
        at = raw.index(packet) + (8 if head else chance.randrange(len(packet) // 4, len(packet) - 24))
        raw[at : at + 16] = chance.randbytes(16)
    return bytes(raw)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "made")
