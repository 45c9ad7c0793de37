"""``overflight verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from overflight.runtime.engines import PRECISIONS, TARGETS

if TYPE_CHECKING:
    from overflight.runtime.engines import Precision, Target


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "--target", type=click.Choice(TARGETS), help="The engine's target.  [default: the engine that run would use]"
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="The engine's precision.")
@click.option("--force", is_flag=True, help="Also an engine that failed its test or was never tested.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(
    bundle: Path | None, target: Target | None, precision: Precision | None, force: bool, as_json: bool
) -> None:
    """Check a bundle's files and replay known frames through its engine.

    Without BUNDLE, the default model's is checked.

    \b
    overflight verify base-256/
    overflight verify base-256/ --target openvino-cpu --precision int8
    """
    import msgspec

    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.errors import EngineError
    from overflight.runtime.evaluation.verify import verify

    where = bundle or default_bundle()
    found = verify(Bundle.open(where), target, precision, forced=force)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(f"{found.model}: {found.files} files as sealed")
        click.echo(f"golden: {found.golden_frames} frames, largest difference {found.golden_max_abs:.1e}")
        if found.fidelity is not None:
            seen = found.fidelity
            click.echo(
                f"{found.engine}: {seen.samples} frames, cosine mean {seen.cosine_mean:.5f}, "
                f"1st percentile {seen.cosine_p1:.5f}, least {seen.cosine_min:.5f}"
            )
            for one in seen.agreement:
                click.echo(f"  bank {one.bank}: top-1 agreement {one.top1:.2%}, decisions flipped {one.flips:.2%}")
        else:
            click.echo(f"{found.engine}: is the reference")
    if not found.passed:
        raise EngineError(f"{where}: {'; '.join(found.reasons)}")
