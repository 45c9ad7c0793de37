"""``overflight calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from overflight.calibration.recipe import Recipe
    from overflight.runtime.bundle import Bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1)
@click.option("--count", type=click.IntRange(min=16), default=256, help="Frames to read ranges from.")
@click.option("--attention", is_flag=True, help="Also quantise inside attention: faster with OpenVINO, less faithful.")
@click.option("--recipe", type=click.Path(path_type=Path), help="Repeat a kept calibration instead of making one.")
@click.option("--json", "as_json", is_flag=True, help="Print verdicts and recipe as JSON.")
def command(
    bundle: Path, sources: tuple[str, ...], count: int, attention: bool, recipe: Path | None, as_json: bool
) -> None:
    """Quantise a bundle's image tower with real frames, and measure its fidelity.

    SOURCES are flights, videos, or folders of stills like those of your flights. The bundle gains
    image.fp16.onnx and image.int8.onnx, and a hold-out of frames on which every engine is judged. Called again after
    an interruption, it resumes. With --recipe, SOURCES are only used to measure fidelity, and may be left out.

    \b
    overflight calibrate base-256/ flights/2026-05-03 survey/
    overflight calibrate base-256/ --recipe kept/calibration
    """
    import msgspec

    from overflight.calibration.calibrate import calibrate
    from overflight.calibration.repeat import repeat
    from overflight.calibration.write_bundle import enrich_with
    from overflight.runtime.bundle import Bundle as OpenedBundle
    from overflight.runtime.errors import EngineError, UsageError
    from overflight.runtime.progress import shown_progress

    if not sources and recipe is None:
        raise UsageError("name frames to calibrate with, or --recipe FOLDER to repeat a calibration")
    opened = OpenedBundle.open(bundle, signed=False)
    with shown_progress() as report:
        if recipe is not None:
            made, kept, verdicts = repeat(opened, recipe, sources, report)
        else:
            found = calibrate(opened, sources, count=count, attention=attention, report=report)
            kept, verdicts = found.recipe, found.verdicts
            made = enrich_with(opened, found)
    if as_json:
        result = {"bundle": str(bundle), "verdicts": msgspec.to_builtins(verdicts), "recipe": msgspec.to_builtins(kept)}
        click.echo(msgspec.json.encode(result))
    else:
        _show(made, kept)
    broken = [f"{precision}: {'; '.join(one.reasons)}" for precision, one in verdicts.items() if not one.passed]
    if broken:
        raise EngineError(f"{bundle}: not faithful on the hold-out, no engine will be offered from it ({broken[0]})")


def _show(bundle: Bundle, recipe: Recipe) -> None:
    from rich.console import Console
    from rich.table import Table

    from overflight.calibration.write_bundle import GRAPHS

    calibrated = bundle.manifest.calibrated
    assert calibrated is not None
    console = Console()
    table = Table(title=f"{bundle.manifest.name}: {calibrated.frames} frames, {calibrated.holdout} held out")
    for title in ("graph", "MB", "cosine mean", "1st percentile", "verdict"):
        table.add_column(title)
    for precision, judged in calibrated.precisions.items():
        size = bundle.file(GRAPHS[precision]).stat().st_size / 1e6
        if judged is None:
            table.add_row(precision, f"{size:.1f}", "", "", "not judged: no hold-out")
        else:
            verdict = "passed" if judged.passed else "FAILED"
            table.add_row(precision, f"{size:.1f}", f"{judged.cosine_mean:.5f}", f"{judged.cosine_p1:.5f}", verdict)
    console.print(table)
    kept = [one for one in recipe.products if one.kept is not None]
    console.print(
        f"{len(recipe.products) - len(kept)} of {len(recipe.products)} products in int8; tensors in fp32: "
        f"{', '.join(recipe.full) or 'norms and softmaxes only'}"
    )
    for one in kept:
        console.print(f"in float: {one.name} ({one.kept})")
