"""The command line: one command per file of a room's ``commands`` folder, imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from overflight import __version__

# Name -> (room, the first line of the command's help). Kept here so that `overflight --help` imports no room;
# a test proves that each line equals its command's own.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("station", "Fly over a short film that is shipped, and leave a flight to look at."),
    "doctor": ("runtime", "Check that this machine is fit for a flight, and say what mends it."),
    "keys": ("runtime", "Make signing keys, and choose which keys this machine trusts."),
    "sign": ("runtime", "Sign bundles and label banks for the aircraft that trust the key."),
    "deploy": ("station", "Bring a bundle or a label bank to an aircraft over ssh, with a way back."),
    "update": (
        "station",
        "Take a new bundle or label bank on this machine, and go back by itself where it does not fly.",
    ),
    "service": ("jetson", "Run from boot: write, install or remove the systemd service."),
    "run": ("runtime", "Label what a camera, a recording or a folder shows."),
    "thresholds": ("runtime", "Find how sure each label must be, from flights or labelled frames."),
    "classify": ("runtime", "Say what pictures show."),
    "embed": ("runtime", "Write the unit embeddings of pictures into a file."),
    "verify": ("runtime", "Check a bundle's files and replay known frames through its engine."),
    "fetch": ("export", "Bring a published model by name: download, export and prove it."),
    "export": ("export", "Turn a checkpoint into a bundle, and prove it."),
    "calibrate": ("calibration", "Quantise a bundle's image tower with real frames, and measure its fidelity."),
    "build": ("export", "Build the engines of this device, prove each, and let the fastest fly."),
    "similarity": ("export", "Compare a picture with texts."),
    "labels": ("export", "Compile a label file into a label bank."),
    "archive": ("station", "Keep flights together on the ground, so that they can be searched."),
    "search": ("station", "Search an archive by sentences and pictures."),
    "review": ("station", "Confirm or reject what a search or an event found, and merge reviews."),
    "rescore": ("station", "Score an archive again with another label bank."),
    "coverage": (
        "station",
        "Show which ground flights covered, how often and how fine, and where a searched area has gaps.",
    ),
    "report": ("station", "Write a flight's report: one page that needs nothing else."),
    "bench": ("bench", "Measure the cost of a frame, compared with other libraries and the machine's limit."),
    "flight": ("runtime", "Work with what a flight left."),
}


class _Rooms(click.Group):
    """A group that knows its commands by name and imports a room only for the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        room, _ = COMMANDS[cmd_name]
        command = import_module(f"overflight.{room}.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Rooms, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def overflight() -> None:
    """Label what a drone's camera sees, on board, without the network and without training."""


def main() -> None:
    """Run the command line; every error a user can meet becomes one line and an exit code."""
    try:
        overflight(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        from overflight.runtime.errors import OverflightError

        if not isinstance(error, OverflightError):
            raise
        click.echo(f"overflight: {error}", err=True)
        sys.exit(error.exit_code)
