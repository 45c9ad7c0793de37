"""The command line: one command per file of a room's ``commands`` folder, imported only when it is called."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from overflight import __version__
from overflight.library_output import captured

if TYPE_CHECKING:
    from collections.abc import Callable

# Name -> (room, the first line of the command's help). Kept here so that `overflight --help` imports no room;
# a test proves that each line equals its command's own.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("station", "Run on a short film that comes with the package, and write its report."),
    "doctor": ("runtime", "Check that this machine is fit for a flight, and print the fixes."),
    "keys": ("runtime", "Make signing keys, and choose which keys this machine trusts."),
    "sign": ("runtime", "Sign bundles and label banks for the aircraft that trust the key."),
    "deploy": ("station", "Deploy a bundle or a label bank to an aircraft over ssh, with rollback."),
    "update": ("station", "Update the bundle or label bank on this machine, and roll back if the flight fails."),
    "service": ("jetson", "Install, show or remove the systemd service that flies from boot."),
    "run": ("runtime", "Label what a camera, a recording or a folder of stills shows."),
    "thresholds": ("runtime", "Fit the thresholds of a label bank to flights or labelled frames."),
    "classify": ("runtime", "Label pictures."),
    "embed": ("runtime", "Write the unit embeddings of pictures to a file."),
    "verify": ("runtime", "Check a bundle's files and replay known frames through its engine."),
    "fetch": ("export", "Bring a published model by name: download, export and prove it."),
    "export": ("export", "Turn a checkpoint into a bundle, and prove it."),
    "calibrate": ("calibration", "Quantise a bundle's image tower with real frames, and measure its fidelity."),
    "build": ("export", "Build this device's engines, test each, and use the fastest that passes."),
    "similarity": ("export", "Compare a picture with texts."),
    "labels": ("export", "Compile a label file into a label bank."),
    "archive": ("station", "Keep flights together on the ground, so that they can be searched."),
    "describe": ("station", "Describe a picture, a mosaic or a flight: place, cover, state, season, quality."),
    "changes": ("station", "Compare two dates of one ground: where it changed, and from what to what."),
    "series": ("station", "Follow one ground over three dates or more: when it changed, and what each label did."),
    "verify-claim": (
        "station",
        "Compare a claim about a picture with counter-sentences: supported, contradicted or cannot tell.",
    ),
    "regions": ("station", "Label the boxes of a detector: COCO JSON in, COCO JSON out."),
    "search": ("station", "Search an archive by sentences and pictures."),
    "evaluate": ("station", "Measure a bundle on a data set by published protocols."),
    "bulk": ("station", "Embed many pictures, videos, mosaics and flights into Parquet files."),
    "serve": (
        "station",
        "Serve the page of a field station: live flights, search, review, upload, labels from choices, a map.",
    ),
    "review": ("station", "Confirm or reject what a search or an event found, and merge reviews."),
    "rescore": ("station", "Score an archive again with another label bank."),
    "coverage": ("station", "Show which ground the flights covered, how often and how finely, and the gaps."),
    "annotate": ("station", "Make the annotated video of a flight."),
    "report": ("station", "Write the report of a flight: one self-contained page."),
    "bench": ("bench", "Measure what a frame costs, next to other runtimes and the hardware's limit."),
    "flight": ("runtime", "Export what a flight recorded."),
}

MAX_PIXELS = 128_000_000  # of a picture; also in runtime/sources/image.py, which is not imported for every command
LONGEST_QUOTE = 80
LONGEST_WORD = 240  # a path may be long and is still wanted whole


class _Failure(NamedTuple):
    """How a command failed: the error's name, one line of text, and the exit code."""

    kind: str
    message: str
    exit_code: int


class _Rooms(click.Group):
    """A group that knows its commands by name and imports a room only for the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        room, _ = COMMANDS[cmd_name]
        command = import_module(f"overflight.{room}.commands.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Rooms, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def overflight() -> None:
    """Label what a drone's camera sees, on board, without a network and without training.

    Exit codes: 0 done, 1 failed, 2 usage error (such as a file that does not exist), 3 a device or a part of the
    installation is missing. With --json, a failure is a JSON object on standard output too.
    """


def main() -> NoReturn:
    """Run the command line; every error that a user can meet becomes one line and an exit code."""
    if hasattr(sys.stdout, "reconfigure"):
        # A file's name is printed as the bytes that it is; Windows would write to a file in the code page of old.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read when OpenCV is loaded
    report = _log_library if sys.argv[1:2] == ["run"] else _print_library
    _take_logging(report)
    with captured(report):
        code = _run()
    sys.exit(code)


def _run() -> int | str | None:
    try:
        overflight(standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except click.exceptions.Exit as error:
        return error.exit_code
    except SystemExit as error:
        return error.code
    except click.exceptions.NoArgsIsHelpError as error:
        if len(sys.argv) == 1:
            click.echo(error.format_message(), err=True)
            return 2
        return _fail(error)
    except Exception as error:
        if os.environ.get("OVERFLIGHT_TRACEBACK"):
            raise
        return _fail(error)
    return 0


def _fail(error: Exception) -> int:
    failure = _failure(error)
    click.echo(f"overflight: {failure.message}", err=True)
    if "--json" in sys.argv[1:]:
        click.echo(json.dumps({"error": failure._asdict()}))
    return failure.exit_code


def _failure(error: Exception) -> _Failure:
    from overflight.runtime.errors import OverflightError

    match error:
        case OverflightError():
            code, message = error.exit_code, str(error)
        case click.exceptions.NoArgsIsHelpError() if isinstance(error.ctx, click.Context):
            code, message = 2, f"no command; see {error.ctx.command_path} --help"
        case click.UsageError():
            return _Failure("UsageError", shortened(_usage(error)), error.exit_code)
        case click.ClickException():
            code, message = error.exit_code, error.format_message()
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError():
            code, message = 2, f"{error.filename}: {error.strerror}; check the path"
        case OSError() if error.errno == errno.ENAMETOOLONG:
            code, message = 2, f"{error.filename}: {error.strerror}; check the path"
        case OSError() if error.filename is not None:
            code, message = 1, f"{error.filename}: {error.strerror}"
        case UnicodeEncodeError() if error.reason == "surrogates not allowed":
            code, message = 2, f"{error.object}: holds a name that is not UTF-8; rename the file"
        case _:
            code, message = 1, _internal(error)
    return _Failure(type(error).__name__, shortened(message), code)


def shortened(message: str) -> str:
    """Write a message as one line, and cut what is quoted or named in it where it is too long to read."""
    line = " ".join(message.split())
    for quote in "'\"":
        line = re.sub(f"{quote}([^{quote}]{{{LONGEST_QUOTE}}})[^{quote}]+{quote}", rf"{quote}\1…{quote}", line)
    return re.sub(rf"(\S{{{LONGEST_WORD}}})\S+", r"\1…", line)


def _usage(error: click.UsageError) -> str:
    """Write click's error as one line, with the help that explains it."""
    message = error.format_message()
    return message if error.ctx is None else f"{message.rstrip('.')}; see {error.ctx.command_path} --help"


def _internal(error: Exception) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    at = "" if frame is None else f" at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"
    return (
        f"internal error: {type(error).__name__}: {error}{at}; "
        "please report it with the output of OVERFLIGHT_TRACEBACK=1 and the same command"
    )


def _take_logging(report: Callable[[str], None]) -> None:
    """Report what is logged or warned in Python in the same way."""

    class Reporter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report(" ".join(record.getMessage().split()))

    logging.basicConfig(level=logging.WARNING, handlers=[Reporter()])
    logging.captureWarnings(capture=True)


def _print_library(line: str) -> None:
    click.echo(f"note: {line}", err=True)


def _log_library(line: str) -> None:
    from overflight.runtime.log import say

    say("library", line=line)
