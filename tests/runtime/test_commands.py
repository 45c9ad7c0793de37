"""The runtime's commands as an operator meets them: answers, one-line errors, exit codes.

Covers: runtime/commands/classify.py, runtime/commands/embed.py, runtime/commands/flight.py, runtime/commands/run.py,
runtime/embeddings.py, runtime/errors.py, runtime/overflight.py, runtime/paths.py, runtime/progress.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.runtime import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.records import Observation

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def given(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> list[str]:
    colour_bank.save(tmp_path / "bank.safetensors")
    return ["--bundle", str(colour_bundle.directory), "--labels", str(tmp_path / "bank.safetensors")]


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "overflight", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on standard error that says what to do, and the exit code."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("overflight: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]
    assert done.returncode == code


def picture(path: Path, red: int, green: int, blue: int) -> Path:
    assert cv2.imwrite(str(path), np.full((40, 60, 3), (blue, green, red), np.uint8))
    return path


def test_classify_answers_for_each_picture(given: list[str], tmp_path: Path) -> None:
    """In words, and as one JSON line each."""
    pictures = [picture(tmp_path / "r.png", 250, 60, 60), picture(tmp_path / "b.png", 60, 60, 250)]
    done = call("classify", *pictures, *given)
    assert done.returncode == 0, done.stderr
    assert f"{pictures[0]}: red" in done.stdout
    lines = call("classify", *pictures, *given, "--json").stdout.splitlines()
    assert [msgspec.json.decode(line, type=Observation).label for line in lines] == ["red", "blue"]


def test_run_prints_every_observation_as_json(given: list[str], tmp_path: Path) -> None:
    """One line a frame on standard output, nothing else there."""
    done = call("run", "test://?frames=12&fps=0&size=64x48", "--out", tmp_path / "f", "--json", *given)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == list(range(12))


def test_embed_writes_unit_vectors_with_their_names(given: list[str], tmp_path: Path) -> None:
    """An npz says which picture each row belongs to, and which tower made it."""
    folders = [tmp_path / "100MEDIA", tmp_path / "101MEDIA"]
    for folder in folders:
        folder.mkdir()
        picture(folder / "DJI_0001.png", 200, 10, 10)
    done = call("embed", *folders, "-o", tmp_path / "x.npz", *given[:2])
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "x.npz") as kept:
        assert kept["names"].tolist() == [str(folder / "DJI_0001.png") for folder in folders]
        np.testing.assert_allclose(np.linalg.norm(kept["embeddings"], axis=1), 1, atol=1e-5)
        assert str(kept["tower"]) == "c" * 64


def test_classify_labels_a_folder_and_names_what_is_damaged(given: list[str], tmp_path: Path) -> None:
    """Its pictures are named by their paths."""
    folder = tmp_path / "card"
    folder.mkdir()
    picture(folder / "a.png", 200, 10, 10)
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = call("classify", folder, "--json", *given)
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[0])["name"] == str(folder / "a.png")
    assert "1 of 2 stills cannot be read" in done.stderr
    assert "b.png" in done.stderr


def test_a_truncated_video_fails_and_keeps_what_it_gave(given: list[str], tmp_path: Path) -> None:
    """Exit code 1, and a flight with the frames that could be decoded."""
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for seed in range(60):
        writer.write(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(
        call("run", path, "--out", tmp_path / "flight", *given), 1, "the recording is cut off", "copy the file again"
    )
    assert len((tmp_path / "flight" / "observations.jsonl").read_bytes().splitlines()) > 10


def test_a_text_file_named_jpg_fails(given: list[str], tmp_path: Path) -> None:
    """Exit code 1."""
    (tmp_path / "text.jpg").write_text("hello")
    refused(call("classify", tmp_path / "text.jpg", *given), 1, "not a picture", "convert or remove it")


def test_a_decompression_bomb_fails(given: list[str], tmp_path: Path) -> None:
    """Exit code 1, before anything is decoded."""
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (20_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    (tmp_path / "bomb.png").write_bytes(header + bytes(64))
    refused(call("classify", tmp_path / "bomb.png", *given), 1, "400 megapixels", "cut it into tiles")


def test_an_empty_directory_is_used_wrongly(given: list[str], tmp_path: Path) -> None:
    """Exit code 2."""
    (tmp_path / "empty").mkdir()
    refused(call("run", tmp_path / "empty", "--out", tmp_path / "flight", *given), 2, "no picture in this folder")
    assert not (tmp_path / "flight").exists()


def test_a_bank_of_another_model_is_used_wrongly(given: list[str], colour_bank: LabelBank, tmp_path: Path) -> None:
    """Exit code 2, and how to make a fitting one."""
    header = msgspec.structs.replace(colour_bank.header, tower="d" * 64, model="another")
    LabelBank.make(header, colour_bank.vectors).save(tmp_path / "foreign.safetensors")
    done = call("run", "test://?frames=3&fps=0", "--out", tmp_path / "f", *given[:3], tmp_path / "foreign.safetensors")
    refused(done, 2, "made for another", "overflight labels")


def test_a_label_file_is_not_a_bank(given: list[str], tmp_path: Path) -> None:
    """Whoever forgets to compile gets the command."""
    (tmp_path / "labels.txt").write_text("meadow\nforest\n")
    refused(call("classify", tmp_path / "x.png", *given[:3], tmp_path / "labels.txt"), 1, "overflight labels")


def test_a_bundle_with_one_flipped_byte_fails(given: list[str], colour_bundle: Bundle, tmp_path: Path) -> None:
    """Exit code 1; a folder without a bundle is exit code 2."""
    copy = Path(shutil.copytree(colour_bundle.directory, tmp_path / "copy"))
    content = bytearray((copy / "image.onnx").read_bytes())
    content[100] ^= 1
    (copy / "image.onnx").write_bytes(content)
    refused(call("run", "test://?frames=3&fps=0", "--bundle", copy, *given[2:]), 1, "SHA-256", "copy the bundle again")
    refused(call("run", "test://?frames=3&fps=0", "--bundle", tmp_path, *given[2:]), 2, "overflight export")


def test_a_wrong_rule_is_used_wrongly(given: list[str]) -> None:
    """Exit code 2."""
    refused(call("run", "test://", "--persist", "5/3", *given), 2, "expected N/M")


@pytest.mark.data
@pytest.mark.parametrize(("name", "frames"), [("uav_karma.mp4", 362), ("uav_brighton_beach", 19)])
def test_real_imagery_gives_one_observation_a_frame(
    given: list[str], imagery: Path, tmp_path: Path, name: str, frames: int
) -> None:
    """A drone's clip and a survey's stills run to the end."""
    done = call("run", imagery / name, "--out", tmp_path / "flight", *given)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "flight" / "observations.jsonl").read_bytes().splitlines()) == frames


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    """Return a folder whose files have names that are not UTF-8, as cameras of old set to Latin-1 write them."""
    folder = tmp_path / os.fsdecode(b"Fl\xfcge")
    folder.mkdir()
    picture(tmp_path / "a.png", 250, 60, 60).rename(folder / os.fsdecode(b"stra\xdfe.png"))
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    shutil.move(tmp_path / "a.avi", tmp_path / os.fsdecode(b"fl\xfcg.avi"))
    return folder


def bytes_call(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "overflight", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)


def test_names_that_are_not_utf8_are_read_and_written(given: list[str], odd_names: Path, tmp_path: Path) -> None:
    """Pictures, folders, flights and reports; in JSON and in the journal the odd bytes are escaped."""
    flight = tmp_path / os.fsdecode(b"fl\xff")
    done = bytes_call("run", odd_names, *given, "--out", flight)
    assert done.returncode == 0, done.stderr
    assert b"fl\xff" in done.stdout
    (line,) = (flight / "observations.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["name"] == "stra\\xdfe.png"
    assert json.loads((flight / "flight.json").read_text())["source"].endswith("Fl\\xfcge")
    for command in (
        ("classify", *odd_names.iterdir(), *given),
        ("embed", odd_names, "-o", tmp_path / "x.npz", *given[:2]),
    ):
        assert bytes_call(*command, "--json").returncode == 0
    assert bytes_call("report", flight).returncode == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_take_such_a_name_says_so(given: list[str], odd_names: Path, as_json: bool) -> None:
    """FFmpeg takes no such path: exit code 2, one line, no crash."""
    done = call("run", odd_names.parent / os.fsdecode(b"fl\xfcg.avi"), *given, *(["--json"] if as_json else []))
    refused(done, 2, "fl\\xfcg.avi: a video's path must be UTF-8; rename it")


def test_a_closed_pipe_ends_a_flight_quietly(given: list[str], tmp_path: Path) -> None:
    """``overflight run … --json | head -1``: the flight ends as if stopped, and nothing is said."""
    command = [
        sys.executable,
        "-m",
        "overflight",
        "run",
        "test://?fps=50&size=64x48",
        "--out",
        str(tmp_path / "f"),
        "--json",
    ]
    with subprocess.Popen(
        [*command, *given],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"frame":0')
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(30) == 0
    assert [line for line in said.splitlines() if "nothing was built" not in line] == []
    assert json.loads((tmp_path / "f" / "flight.json").read_text())["ended_because"] == "stopped"


def test_other_commands_end_quietly_too(given: list[str], tmp_path: Path) -> None:
    """Whatever is still to be written has no reader."""
    pictures = [picture(tmp_path / f"{number}.png", 250, 60, 60) for number in range(3)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "overflight", "classify", *map(str, pictures), *given],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert [line for line in done.stderr.splitlines() if "nothing was built" not in line] == []


@pytest.mark.parametrize(("name", "ended"), [("SIGHUP", "stopped"), ("SIGTERM", "stopped"), ("SIGINT", "stopped")])
def test_a_signal_ends_a_flight_cleanly(given: list[str], tmp_path: Path, name: str, ended: str) -> None:
    """A terminal that is closed too, unless ``nohup`` asked to ignore that."""
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored in this shell (nohup), and so in a flight that it starts")
    command = [
        sys.executable,
        "-m",
        "overflight",
        "run",
        "test://?fps=50&size=64x48",
        "--out",
        str(tmp_path / "f"),
        "--json",
    ]
    with subprocess.Popen(
        [*command, *given],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(getattr(signal, name))
        process.stdout.read()
        assert process.wait(30) == 0
    assert json.loads((tmp_path / "f" / "flight.json").read_text())["ended_because"] == ended


def test_what_libraries_say_is_repeated_once(given: list[str], tmp_path: Path) -> None:
    """libjpeg writes to standard error by itself; the same line for many files is one note."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    jpeg = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    start = jpeg.index(b"\xff\xda") + 40
    jpeg[start : start + 30] = bytes(30)
    (tmp_path / "0.jpg").write_bytes(jpeg)
    read = f"[cv2.imread({str(tmp_path / '0.jpg')!r}) for _ in range(5)]"
    plain = subprocess.run([sys.executable, "-c", f"import cv2; {read}"], capture_output=True, text=True, check=True)
    if not plain.stderr:
        pytest.skip("this libjpeg says nothing about this damage")
    code = f"import cv2; from overflight import cli; cli._run = lambda: ({read}, 0)[1]; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = plain.stderr.splitlines()[0]
    assert done.stderr.splitlines() == [f"note: {line}", "note: 4 more lines from libraries"]
