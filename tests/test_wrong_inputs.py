"""What a newcomer types wrongly: an exit code and one line each, in every command; never a traceback.

Covers: runtime/finite.py.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from overflight import cli
from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.flight.run import fly

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


class Case(NamedTuple):
    """A command line, its exit code, and words of its one line."""

    line: str
    code: int
    words: str


GIVEN = "--bundle {bundle} --labels {bank} --out {new}"
CASES = (
    # The command itself.
    Case("fly film.avi", 2, "No such command 'fly'"),
    Case("--verbose", 2, "No such option '--verbose'"),
    Case("run film.avi --jsn", 2, "Did you mean"),
    Case("run", 2, "no source"),
    Case("run a.mp4 b.mp4", 2, "unexpected extra argument"),
    Case("classify", 2, "Missing argument"),
    Case("embed pic.png", 2, "Missing option"),
    Case("flight", 2, "no command; see overflight flight --help"),
    Case("flight show x", 2, "No such command 'show'"),
    Case("service", 2, "overflight service --help"),
    Case("keys", 2, "overflight keys --help"),
    Case("bench", 2, "overflight bench --help"),
    Case("report", 2, "Missing argument"),
    Case("thresholds", 2, "Missing"),
    # A file that is not there, in every command: exit code 2.
    Case("run none.mp4 {given}", 2, "none.mp4: no such file"),
    Case("run none/ {given}", 2, "no such file"),
    Case("run none*.jpg {given}", 2, "no such file"),
    Case("run none.tif {given}", 2, "no such file"),
    Case("run file://none.mp4 {given}", 2, "no such file"),
    Case("run film.avi --labels none.safetensors --bundle {bundle} --out {new}", 2, "none.safetensors: No such file"),
    Case("run film.avi --bundle none --out {new}", 2, "no bundle here"),
    Case("run film.avi {given} --pose none.srt", 2, "none.srt: No such file"),
    Case("run --config none.toml", 2, "none.toml: No such file"),
    Case("classify none.png {inputs}", 2, "none.png: No such file"),
    Case("classify pic.png --bundle {bundle} --labels none.safetensors", 2, "none.safetensors: No such file"),
    Case("classify pic.png --bundle none", 2, "no bundle here"),
    Case("embed none.png -o {new}.npz --bundle {bundle}", 2, "no such file"),
    Case("embed pic.png -o {new}.npz --bundle none", 2, "no bundle here"),
    Case("verify none", 2, "no bundle here"),
    Case("report none", 2, "not a flight directory"),
    Case("flight export none", 2, "not a flight directory"),
    Case("thresholds none.safetensors --flight {flight} -o {new}", 2, "none.safetensors: No such file"),
    Case("thresholds {bank} --flight none -o {new}", 2, "none"),
    Case("thresholds {bank} --examples none.csv -o {new} --bundle {bundle}", 2, "none.csv"),
    Case("labels none.txt", 2, "none.txt: No such file"),
    Case("labels labels.txt --bundle none", 2, "no bundle here"),
    Case("similarity none.png meadow", 2, "none.png: No such file"),
    Case("similarity pic.png meadow --bundle none", 2, "no bundle here"),
    Case("export none {new}", 2, "none: no such directory"),
    Case("calibrate none film.avi", 2, "no bundle here"),
    Case("calibrate {bundle} none.mp4", 2, "none.mp4"),
    Case("build none", 2, "no bundle here"),
    Case("sign none --key none.key", 2, "none"),
    Case("keys trust none.pub", 2, "none.pub"),
    Case("keys check none", 2, "none"),
    Case("bench table none.jsonl", 2, "none.jsonl"),
    Case("service install none.mp4 --dry-run --user root", 2, "none.mp4: no such file"),
    Case("service install --config none.toml --dry-run --user root", 2, "none.toml: No such file"),
    # Something else than what was asked for.
    Case("run {videos} {given}", 2, "2 videos and no picture"),
    Case("run {empty} {given}", 2, "no picture in this folder"),
    Case("run labels.txt {given}", 1, "labels.txt"),
    Case("run empty.mp4 {given}", 1, "empty.mp4"),
    Case("run text.jpg {given}", 1, "not a picture"),
    Case("run {bundle} {given}", 2, "no picture in this folder"),
    Case("run film.avi --bundle {bundle} --labels labels.txt --out {new}", 1, "overflight labels"),
    Case("run film.avi --bundle {bundle} --labels pic.png --out {new}", 1, "pic.png"),
    Case("run film.avi --bundle {bundle} --labels empty.mp4 --out {new}", 1, "empty.mp4"),
    Case("run film.avi --bundle {bundle} --labels {empty} --out {new}", 2, "no label bank"),
    Case("run film.avi --bundle {empty} --out {new}", 2, "no bundle here"),
    Case("run film.avi --bundle film.avi --out {new}", 2, "no bundle here"),
    Case("run film.avi --bundle {bundle} --out {new}", 3, "holds no label bank"),
    Case("run film.avi --bundle {torn} --labels {bank} --out {new}", 1, "not a manifest"),
    Case("run film.avi --bundle {changed} --labels {bank} --out {new}", 1, "SHA-256"),
    Case("run film.avi {given} --pose labels.txt", 2, "expected .srt"),
    Case("run film.avi {given} --pose text.srt", 1, "text.srt"),
    Case("run film.avi {given} --pose text.csv", 1, "text.csv"),
    Case("run film.avi {given} --pose text.gpx", 1, "text.gpx"),
    Case("run film.avi {given} --pose text.tlog", 1, "text.tlog"),
    Case("run --config labels.txt", 2, "not TOML"),
    Case("run --config pic.png", 2, "not UTF-8"),
    Case("run --config {empty}", 2, "a folder; expected a regular file"),
    Case("classify {empty} {inputs}", 2, "no picture in this folder"),
    Case("classify text.jpg {inputs}", 1, "not a picture"),
    Case("classify empty.mp4 {inputs}", 1, "an empty file"),
    Case("classify film.avi {inputs}", 1, "not a picture"),
    Case("classify torn.jpg {inputs}", 1, "torn.jpg"),
    Case("classify bomb.png {inputs}", 1, "400 megapixels"),
    Case("embed text.jpg -o {new}.npz --bundle {bundle}", 1, "not a picture"),
    Case("embed {empty} -o {new}.npz --bundle {bundle}", 2, "no picture"),
    Case("embed pic.png -o {new}.txt --bundle {bundle}", 2, ".npz"),
    Case("embed pic.png -o {new}/deep/x.npz --bundle {bundle}", 2, "deep"),
    Case("verify {empty}", 2, "no bundle here"),
    Case("verify {torn}", 1, "not a manifest"),
    Case("verify {changed}", 1, "SHA-256"),
    Case("verify pic.png", 2, "no bundle here"),
    Case("report {empty}", 2, "not a flight directory"),
    Case("report pic.png", 2, "not a flight directory"),
    Case("report {badflight}", 2, "not a flight directory"),
    Case("flight export {empty}", 2, "not a flight directory"),
    Case("flight export {flight}", 1, "has a position"),
    Case("flight export {flight} --format shp", 2, "shp"),
    Case("flight export {flight} --format ,", 2, "format"),
    Case("thresholds {bank} -o {new}", 2, "nothing to learn from"),
    Case("thresholds labels.txt --flight {flight} -o {new}", 1, "overflight labels"),
    Case("thresholds {bank} --flight {badjournal} -o {new}", 1, "not a flight journal"),
    Case("thresholds {bank} --examples labels.txt -o {new} --bundle {bundle}", 2, "labels.txt"),
    Case("labels pic.png", 2, "pic.png"),
    Case("labels empty.txt", 2, "empty.txt"),
    Case("labels wrong.toml", 2, "wrong.toml"),
    Case("similarity text.jpg meadow", 1, "not a picture"),
    Case("export {empty} {new}", 2, "config.json"),
    Case("export pic.png {new}", 2, "pic.png"),
    Case("calibrate {bundle} {empty}", 2, "no frames"),
    Case("calibrate {bundle} labels.txt", 1, "labels.txt"),
    Case("build {empty}", 2, "no bundle here"),
    Case("keys trust pic.png", 1, "pic.png"),
    Case("keys new x.pub --no-password", 2, ".pub is the public key's suffix"),
    Case("sign {bank} --key labels.txt", 2, "labels.txt"),
    Case("bench table labels.txt", 2, "labels.txt"),
    # A value that cannot be.
    Case("run film.avi {given} --fps 0", 2, "not in the range x>0"),
    Case("run film.avi {given} --fps -5", 2, "not in the range x>0"),
    Case("run film.avi {given} --fps nan", 2, "not a finite number"),
    Case("run film.avi {given} --fps inf", 2, "not a finite number"),
    Case("run film.avi {given} --fps ten", 2, "not a valid float"),
    Case("run film.avi {given} --least -1", 2, "not in the range x>=0"),
    Case("run film.avi {given} --cool-down -2", 2, "not in the range x>=0"),
    Case("run film.avi {given} --cool-down nan", 2, "not a finite number"),
    Case("run film.avi {given} --latency-ms -1", 2, "not in the range x>=0"),
    Case("run film.avi {given} --skip-similar -6", 2, "not in the range x>=0"),
    Case("run film.avi {given} --margin 1.5", 2, "not in the range 0<=x<=1"),
    Case("run film.avi {given} --threads -1", 2, "not in the range x>=0"),
    Case("run film.avi {given} --threads 1.5", 2, "not a valid integer"),
    Case("run film.avi {given} --budget-mb 0", 2, "not in the range x>=1"),
    Case("run film.avi {given} --health 70000", 2, "not in the range 0<=x<=65535"),
    Case("run film.avi {given} --persist 5/3", 2, "expected N/M"),
    Case("run film.avi {given} --persist 3", 2, "expected N/M"),
    Case("run film.avi {given} --persist 0/0", 2, "expected N/M"),
    Case("run film.avi {given} --duty 60", 2, "expected ON/PERIOD"),
    Case("run film.avi {given} --duty 60/10", 2, "expected ON/PERIOD"),
    Case("run film.avi {given} --duty -1/10", 2, "expected ON/PERIOD"),
    Case("run film.avi {given} --duty nan/10", 2, "expected ON/PERIOD"),
    Case("run film.avi {given} --duty 1/inf", 2, "expected ON/PERIOD"),
    Case("run film.avi {given} --tiles 0x3", 2, "--tiles"),
    Case("run film.avi {given} --tiles many", 2, "--tiles"),
    Case("run film.avi {given} --precision int4", 2, "'int4' is not one of"),
    Case("run film.avi {given} --target gpu", 3, "overflight build"),
    Case("run film.avi {given} --precision int8", 3, "overflight build"),
    Case("run film.avi {given} --link carrier-pigeon://x", 2, "expected one of mqtt://"),
    Case("run film.avi {given} --link mqtt://", 2, "no host"),
    Case("run film.avi {given} --link mqtt://h:99999", 2, "--link"),
    Case("run film.avi {given} --link cot+udp://h", 2, "no port"),
    Case("run film.avi {given} --link mqtt://h#rate=fast", 2, "expected a number above 0"),
    Case("run film.avi {given} --link mqtt://h#speed=1", 2, "speed"),
    Case("run film.avi {given} --camera hfov=70", 2, "--pose"),
    Case("run film.avi {given} --pose track.csv --camera wide", 2, "wide"),
    Case("run film.avi {given} --pose track.csv --camera hfov=190", 2, "hfov"),
    Case("run film.avi {given} --pose track.csv?shift=1", 2, "shift_s"),
    Case("run film.avi {given} --pose track.csv?start=noon", 2, "start"),
    Case("run film.avi {given} --pose stills", 2, "stills"),
    Case("run film.avi --bundle {bundle} --watch-bank", 2, "nothing to watch"),
    Case("run film.avi --bundle {bundle} --labels {bank} --out {flight}", 2, "--replace"),
    Case("run film.avi --bundle {bundle} --labels {bank} --out {videos}", 2, "not empty"),
    Case("run film.avi --bundle {bundle} --labels {bank} --out {videos}/one.avi", 1, "File exists"),
    Case("run film.avi --bundle {bundle} --labels {bank} --out {videos}/one.avi/x", 1, "Not a directory"),
    Case("run ftp://host/film.mp4 {given}", 2, "unknown kind of source 'ftp'"),
    Case("run /dev/video {given}", 2, "not a video device"),
    Case("run v4l2://camera {given}", 2, "not a video device"),
    Case("run test://?fps=fast {given}", 2, "test://"),
    Case("run test://?colour=red {given}", 2, "test://"),
    Case("run csi://front {given}", 2, "csi://"),
    Case("run file://mosaic.tif?window=0 {given}", 2, "window"),
    Case("thresholds {bank} --flight {flight} --rate -1 -o {new}", 2, "rate"),
    Case("thresholds {bank} --flight {flight} --rate nan -o {new}", 2, "rate"),
    Case("verify {bundle} --target gpu", 2, "'gpu' is not one of"),
    Case("calibrate {bundle} film.avi --count 3", 2, "not in the range"),
    Case("service install test:// --name Front --dry-run --root {empty}", 2, "expected small letters"),
    Case("service install test:// --watchdog 0 --dry-run --root {empty}", 2, "not in the range"),
    Case("service install --dry-run --root {empty}", 2, "no source"),
    Case("service remove --name ../x --root {empty}", 2, "expected small letters"),
    Case("similarity pic.png meadow --template nothing", 2, "{{}}"),
    # The ground's commands.
    Case("describe none.jpg --bundle {bundle} --labels {bank}", 2, "none.jpg"),
    Case("describe pic.png --bundle {bundle} --labels nosuch", 2, "no shipped labels of this name"),
    Case("describe pic.png --bundle {bundle} --labels {bank} --margin nan", 2, "not a finite number"),
    Case("describe pic.png --bundle {bundle} --labels {bank} --gsd -1", 2, "--gsd -1"),
    Case("describe pic.png --bundle {bundle} --labels {bank} --gsd nan", 2, "--gsd nan"),
    Case("describe {flight} --bundle {bundle} --labels {bank} --gsd 0.1", 2, "a flight has its own footprints"),
    Case("describe none.jpg -o x.pdf", 2, "ends in '.pdf'; expected one of .json, .md, .html, .gpkg, .geojson, .csv"),
    Case("describe none.jpg -o x", 2, "ends in ''"),
    Case("describe none.jpg -o deep/x.json", 2, "its folder does not exist"),
    Case("describe pic.png -o {empty}", 2, "ends in ''"),
    Case("verify-claim pic.png", 2, "Missing argument 'CLAIM'"),
    Case("verify-claim none.png house --bundle {bundle}", 2, "none.png"),
    Case("verify-claim text.jpg house --bundle {bundle}", 1, "not a picture"),
    Case("changes pic.png", 2, "Missing argument 'AFTER'"),
    Case("changes pic.png none.png --bundle {bundle} --labels {bank}", 2, "none.png"),
    Case("changes pic.png {empty} --bundle {bundle} --labels {bank}", 2, "empty"),
    Case("changes pic.png pic.png -o x.pdf", 2, "ends in '.pdf'"),
    Case("changes {flight} {flight} -o x.html", 2, "ends in '.html'"),
    Case("changes pic.png pic.png --answer yes --answer no", 2, "--answer: needs --ask"),
    Case("changes pic.png pic.png --ask x --answer yes", 2, "given twice or more"),
    Case("changes pic.png pic.png --ask colour", 2, "expected a question such as"),
    Case("changes pic.png pic.png --false-alarm nan", 2, "not a finite number"),
    Case("changes pic.png pic.png --background pic.png", 2, "requires 2 arguments"),
    Case("series pic.png pic.png --bundle {bundle} --labels {bank}", 2, "overflight changes"),
    Case("series pic.png pic.png --bundle {bundle} --labels {bank} --date 2020-13 --date 2021", 2, "2020-13"),
    Case("series pic.png pic.png pic.png --bundle {bundle} --labels {bank}", 2, "date"),
    Case("series pic.png pic.png -o x.pdf", 2, "ends in '.pdf'"),
    Case("regions none.json --bundle {bundle} --labels {bank}", 2, "none.json"),
    Case("regions labels.txt --bundle {bundle} --labels {bank}", 2, "labels.txt"),
    Case("regions none.json -o deep/x.json", 2, "its folder does not exist"),
    Case("annotate none", 2, "not a flight directory"),
    Case("coverage none", 2, "no journal here"),
    Case("coverage {flight} --area none.json", 2, "none.json"),
    Case("coverage {flight} --area labels.txt", 2, "labels.txt"),
    Case("coverage {flight} --cell nan", 2, "not a finite number"),
    Case("coverage {flight} --out x.pdf", 2, "ends in '.pdf'"),
    Case("archive", 2, "overflight archive --help"),
    Case("archive add {new} none", 2, "none"),
    Case("archive add {new} labels.txt", 1, "labels.txt"),
    Case("search none meadow", 2, "none"),
    Case("search {empty} meadow", 2, "empty"),
    Case("rescore none {bank}", 2, "none"),
    Case("rescore {empty} {bank}", 2, "empty"),
    Case("rescore {empty} none.safetensors", 2, "none.safetensors"),
    Case("rescore none {bank} --out x.pdf", 2, "ends in '.pdf'"),
    Case("review", 2, "overflight review --help"),
    Case("serve none --check", 2, "none"),
    Case("serve {empty} --port 70000 --check", 2, "not in the range"),
    Case("bulk", 2, "no store"),
    Case("bulk none --out {new}", 2, "none"),
    Case("bulk {empty} --out {new} --bundle {bundle}", 2, "nothing to embed"),
    Case("bulk pic.png --bundle {bundle}", 2, "--out"),
    Case("bulk pic.png --out {new} --shard 3/3 --bundle {bundle}", 2, "3/3"),
    Case("bulk pic.png --out {new} --shard one --bundle {bundle}", 2, "one"),
    Case("bulk pic.png --out {new} --fps nan", 2, "not a finite number"),
    Case("bulk pic.png --plan --nodes none --bundle {bundle}", 2, "--nodes"),
    Case("evaluate none {empty}", 2, "no bundle here"),
    Case("evaluate {bundle} none", 2, "none"),
    Case("evaluate {bundle} {empty}", 2, "empty"),
    Case("evaluate {bundle} {empty} --as imagenet", 2, "expected one of rsi-cb128"),
    Case("evaluate {bundle} {empty} --classes none.json", 2, "none.json"),
    Case("evaluate {bundle} {empty} --classes labels.txt", 2, "labels.txt"),
    Case("evaluate {bundle} {empty} --task guess", 2, "'guess' is not one of"),
    Case("evaluate {bundle} none --out x.pdf", 2, "ends in '.pdf'"),
    Case("fetch nothing {new}", 2, "nothing"),
    Case("deploy {bundle}", 2, "expected BUNDLE HOST"),
    Case("update", 2, "--from"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, colour_bundle: Bundle, colour_bank: LabelBank) -> Path:
    """Make a folder with everything that the command lines name."""
    root = tmp_path_factory.mktemp("newcomer")
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    film = cv2.VideoWriter(str(root / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(12):
        film.write(noise)
    film.release()
    cv2.imwrite(str(root / "pic.png"), noise)
    (root / "torn.jpg").write_bytes(cv2.imencode(".jpg", noise)[1].tobytes()[:300])
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (20_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    (root / "bomb.png").write_bytes(header + bytes(64))
    for name in ("empty.mp4", "empty.txt"):
        (root / name).touch()
    for name in ("text.jpg", "text.srt", "text.csv", "text.gpx", "text.tlog"):
        (root / name).write_text("this is only text\n")
    (root / "labels.txt").write_text("meadow\nforest\n")
    (root / "wrong.toml").write_text("labels = [\n")
    (root / "track.csv").write_text("t_s,lat,lon,rel_alt\n0,49,8,50\n9,49,8,50\n")
    for name in ("empty", "videos", "badflight", "torn"):
        (root / name).mkdir()
    for name in ("one.avi", "two.avi"):
        shutil.copy(root / "film.avi", root / "videos" / name)
    (root / "badflight" / "flight.json").write_text("{")
    (root / "torn" / "manifest.json").write_text('{"schema": 1,')
    changed = Path(shutil.copytree(colour_bundle.directory, root / "changed")) / "image.onnx"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    colour_bank.save(root / "bank.safetensors")
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        fly(overflight, str(root / "film.avi"), root / "flight")
    shutil.copytree(root / "flight", root / "badjournal")
    (root / "badjournal" / "journal.sqlite").write_bytes(b"not a database" * 100)
    return root


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["overflight", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_a_wrong_input_gets_an_exit_code_and_one_line(
    case: Case,
    place: Path,
    colour_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The line says what was wrong, what was expected, what to do; it is short, and there is nothing else."""
    names = {name: name for name in ("empty", "videos", "badflight", "torn", "changed", "flight", "badjournal")}
    names |= {"bundle": str(colour_bundle.directory), "bank": "bank.safetensors", "new": str(tmp_path / "new")}
    names |= {"inputs": "--bundle {bundle} --labels {bank}", "given": GIVEN}
    line = case.line.format(**names).format(**names)
    monkeypatch.chdir(place)
    code = call(line.split(), monkeypatch)
    out, err = capfd.readouterr()
    lines = [text for text in err.splitlines() if not text.startswith(("note: ", "{"))]
    assert code == case.code, (code, err)
    assert len(lines) == 1, err
    assert lines[0].startswith("overflight: "), err
    assert case.words.format() in lines[0]
    assert "internal error" not in lines[0]
    assert len(lines[0]) < 500
    assert code == 1 or not (tmp_path / "new").exists()
    assert "Traceback" not in out + err


def test_there_are_150_of_them() -> None:
    """Each once."""
    assert len({case.line for case in CASES}) == len(CASES) >= 150


@pytest.mark.parametrize(
    ("line", "code", "kind"),
    [
        ("run none.mp4 --json", 2, "UsageError"),
        ("run --fps -1 film.avi --json", 2, "UsageError"),
        ("classify none.png --json", 2, "NoSourceError"),
        ("report none --json", 2, "UsageError"),
        ("verify torn --json", 1, "BundleError"),
        ("flight export flight --json", 1, "OverflightError"),
        ("nothing --json", 2, "UsageError"),
    ],
)
def test_with_json_a_failure_is_json_too(
    line: str,
    code: int,
    kind: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On standard output, with the same exit code and the same line."""
    monkeypatch.chdir(place)
    assert call(line.split(), monkeypatch) == code
    out, err = capfd.readouterr()
    error = json.loads(out)["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert f"overflight: {error['message']}" in err.splitlines()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("labels long.txt", 2),
        ("classify {long}.png --bundle {bundle} --labels bank.safetensors", 2),
        ("run {long} --bundle {bundle} --labels bank.safetensors --out new", 2),
        ("run film.avi --bundle {bundle} --precision {long}", 2),
        ("run film.avi --bundle {bundle} --persist {long}", 2),
    ],
)
def test_what_is_too_long_to_read_is_cut(
    line: str,
    code: int,
    place: Path,
    colour_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A label, a path or a value of 3000 characters does not fill the screen."""
    monkeypatch.chdir(place)
    Path("long.txt").write_text("x" * 3000 + "\n" + "x" * 3000 + "\n")
    arguments = line.format(long="x" * 3000, bundle=colour_bundle.directory).split()
    assert call(arguments, monkeypatch) == code
    (message,) = capfd.readouterr().err.splitlines()
    assert "x" * 20 in message
    assert "…" in message
    assert len(message) < 600


def test_an_unforeseen_error_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], place: Path
) -> None:
    """It says where it happened and how to report it; the traceback is there for those who ask."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("no such table: observations")

    monkeypatch.chdir(place)
    monkeypatch.setattr("overflight.station.report.summarise", fail)
    assert call(["report", "flight"], monkeypatch) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "internal error: OperationalError: no such table: observations at test_wrong_inputs.py:" in line
    assert "OVERFLIGHT_TRACEBACK=1" in line
    monkeypatch.setenv("OVERFLIGHT_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["overflight", "report", "flight"])
    with pytest.raises(sqlite3.OperationalError):
        cli.main()
