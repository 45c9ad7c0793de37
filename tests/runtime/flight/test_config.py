"""The configuration file of a flight: every option, checked by the options themselves, comments kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from overflight.runtime.commands.run import command
from overflight.runtime.errors import UsageError
from overflight.runtime.flight.config import config_keys, key_table, read_config, write_config

PAGE = Path(__file__).parents[3] / "docs/configuration.md"
COMMENTED = """\
# Front camera.
source = "csi://0"   # the left connector
labels = "banks/scenes.safetensors"

threads = 2 # leaves two
persist = '4/6'
link = ["mqtt://10.0.0.1/drone#rate=1000"]  # thin
"""


def read(path: Path) -> dict[str, Any]:
    return read_config(path, command, click.Context(command))


def printed(*arguments: str | Path) -> str:
    result = CliRunner().invoke(command, [*map(str, arguments), "--print-config"])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_every_option_that_says_how_to_fly_is_a_key() -> None:
    """What is not a key is not about the flight."""
    left_out = {parameter.name for parameter in command.params} - {p.name for p in config_keys(command).values()}
    assert left_out == {"config", "print_config", "check", "as_json"}


def test_what_is_printed_can_be_read(tmp_path: Path) -> None:
    """Every option given comes back as it was, the paths absolute."""
    options = {
        "--labels": "bank.safetensors", "--bundle": "/b", "--out": "f", "--target": "onnxruntime-cpu",
        "--precision": "int8", "--threads": "3", "--margin": "0.25", "--persist": "2/4", "--least": "1.5",
        "--cool-down": "7", "--health": "8080", "--pose": "udpin:0.0.0.0:14550", "--camera": "hfov=70",
        "--outbox": "o.sqlite", "--budget-mb": "9", "--fps": "2.5", "--duty": "1/2", "--latency-ms": "80",
        "--skip-similar": "6", "--tiles": "2x3", "--terrain": "dem.tif?takeoff=49,8",
        "--source-file": "s", "--link-file": "l", "--power-budget": "12", "--max-temperature": "80",
        "--reserve-wh": "20.5",
    }  # fmt: skip
    given = [word for pair in options.items() for word in pair]
    flags = ["--replace", "--force-engine", "--watch-bank", "--link", "mqtt://a/b", "--link", 'https://x/"q"#\x7f']
    (tmp_path / "flight.toml").write_text(printed("a \\ b.mp4", *given, *flags))
    values = read(tmp_path / "flight.toml")
    assert set(values) == {parameter.name for parameter in config_keys(command).values()}
    assert values["source"] == str(Path.cwd() / "a \\ b.mp4")
    assert values["labels"] == Path.cwd() / "bank.safetensors"
    assert values["links"] == ("mqtt://a/b", 'https://x/"q"#\x7f')
    assert (values["fps"], values["threads"], values["watch_bank"]) == (2.5, 3, True)


def test_a_template_explains_every_option() -> None:
    """Without a source too, and as valid TOML in which nothing is set."""
    text = printed()
    for key in config_keys(command):
        assert f"\n# {key} =" in text
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []


def test_comments_and_order_are_kept(tmp_path: Path) -> None:
    """Only the value that the command line replaces changes; what is new comes last."""
    path = tmp_path / "flight.toml"
    path.write_text(COMMENTED)
    changed = printed("--config", path, "--threads", "4", "--fps", "5")
    expected = COMMENTED.replace("threads = 2 #", "threads = 4 #")
    expected = expected.replace('"banks/', f'"{tmp_path}/banks/')
    assert changed.startswith(expected)
    assert changed.endswith("fps = 5.0\n")


def test_the_command_line_goes_first(tmp_path: Path) -> None:
    """An option that is given replaces the file's, also the source."""
    path = tmp_path / "flight.toml"
    path.write_text('source = "csi://0"\nfps = 2\n')
    text = printed("test://", "--config", path, "--fps", "9")
    assert 'source = "test://"' in text
    assert "fps = 9.0" in text


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    """So that a folder with a flight's configuration can be moved; addresses stay as they are."""
    (tmp_path / "track.srt").write_text("")
    path = tmp_path / "flight.toml"
    path.write_text('source = "film.mp4"\npose = "track.srt?shift_s=1"\nout = "~/flights"\noutbox = "/o"\n')
    values = read(path)
    assert values["source"] == str(tmp_path / "film.mp4")
    assert values["pose"] == str(tmp_path / "track.srt?shift_s=1")
    assert (values["out"], values["outbox"]) == (Path("~/flights"), Path("/o"))
    path.write_text('source = "rtsp://cam/one"\npose = "udpin:0.0.0.0:14550"\n')
    assert read(path) == {"source": "rtsp://cam/one", "pose": "udpin:0.0.0.0:14550"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labls = 'x'", "unknown key 'labls'; did you mean 'labels'"),
        ("watch_bank = true", "unknown key 'watch_bank'; did you mean 'watch-bank'"),
        ("zzz = 1", "expected one of: source, labels"),
        ("fps = 'two'", 'fps = "two"; expected a number'),
        ("fps = -1", "fps: -1.0 is not in the range x>0"),
        ("fps = nan", "not a finite number"),
        ("fps = true", "expected a number"),
        ("threads = 2.5", "expected a whole number"),
        ("replace = 'yes'", "expected true or false"),
        ("replace = 1", "expected true or false"),
        ("link = 'mqtt://x'", "expected a list of strings"),
        ("link = [1]", "expected a list of strings"),
        ("labels = 3", "expected a string"),
        ("labels = ['a']", "expected a string"),
        ("precision = 'int4'", "'int4' is not one of 'fp32', 'fp16', 'int8'"),
        ("[engine]\ntarget = 'x'", "unknown key 'engine'"),
        ("fps = 1\nfps = 2", "not TOML"),
        ("fps =", "not TOML"),
        ("json = true", "unknown key 'json'"),
        ("labels = " + "'" + "x" * 500 + "'\nthreads = '" + "y" * 500 + "'", "…; expected a whole number"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_what_is_expected(tmp_path: Path, text: str, words: str) -> None:
    """One line each."""
    path = tmp_path / "flight.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Missing, or not text."""
    path = tmp_path / "flight.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="expected a flight's configuration"):
        read(path)


def test_a_value_on_several_lines_is_not_guessed_at() -> None:
    """It is kept while it is unchanged, and refused where it would have to be rewritten."""
    text = 'link = [\n  "mqtt://a",\n]\n'
    assert write_config(command, {"links": ("mqtt://a",)}, text) == text
    with pytest.raises(UsageError, match="write it there on one line"):
        write_config(command, {"links": ("mqtt://b",)}, text)


def test_the_page_describes_every_key() -> None:
    """docs/configuration.md has the table that the code makes; its example is read without a complaint."""
    page = PAGE.read_text(encoding="utf-8")
    assert key_table(command) in page, "write it with: key_table(command) of runtime/flight/config.py"


def test_the_example_of_the_page_is_valid(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (tmp_path / "flight.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    assert read(tmp_path / "flight.toml")["links"] == ("mqtt://broker/overflight", "cot+udp://239.2.3.1:6969")


@pytest.mark.parametrize("text", ["a = " + "[" * 30_000, "a = " + "[" * 2_000 + "]" * 2_000, "#" * 70_000])
def test_a_hostile_configuration_is_a_usage_error(text: str, tmp_path: Path) -> None:
    """Deep nesting, and more than a configuration holds."""
    (tmp_path / "flight.toml").write_text(text)
    with pytest.raises(UsageError, match=r"nested too deeply|expected at most|not TOML"):
        read(tmp_path / "flight.toml")


def test_a_pipe_is_no_configuration(tmp_path: Path) -> None:
    """It blocks nobody."""
    os.mkfifo(tmp_path / "flight.toml")
    with pytest.raises(UsageError, match="a named pipe"):
        read(tmp_path / "flight.toml")
