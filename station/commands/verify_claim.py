"""``overflight verify-claim``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from overflight.station.claims import Verdict
    from overflight.station.words import Language

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("image", type=_PATH)
@click.argument("claim")
@click.option("--against", multiple=True, help="A counter-sentence of your own; repeatable.")
@click.option("--bundle", type=_PATH, help="A bundle.  [default: the default model's]")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def command(
    image: Path, claim: str, against: tuple[str, ...], bundle: Path | None, language: Language, as_json: bool
) -> None:
    """Compare a claim about a picture with counter-sentences: supported, contradicted or cannot tell.

    Counter-sentences are made by shipped rules (antonyms, other things of the same class, swapped attributes) and from
    --against. IMAGE#X,Y,WIDTH,HEIGHT is a part of a picture. The answer is a comparison of sentences: neither a proof
    nor a probability. Exit code 0 whatever the answer.

    \b
    overflight verify-claim site.jpg "concrete frame with exposed rebar" --against "finished building with a roof"
    """
    import msgspec

    verdict = _verify(image, claim, against, bundle)
    if as_json:
        click.echo(msgspec.json.encode(verdict).decode())
        return
    _show(verdict, language)


def _verify(image: Path, claim: str, against: tuple[str, ...], bundle: Path | None) -> Verdict:
    from overflight.export.encode import TextEncoder
    from overflight.runtime.bundle import hash_file
    from overflight.station.claims import verify
    from overflight.station.claims.verify import Hashes, hash_rules
    from overflight.station.ground.towers import open_bundle
    from overflight.station.search.terms import embed_pictures

    opened = open_bundle(bundle)
    (embedding,) = embed_pictures(opened, [image])
    source = Path(str(image).partition("#")[0]) if not image.exists() else image
    hashes = Hashes(opened.manifest.tower, hash_rules(), hash_file(source))
    with TextEncoder(opened) as encoder:
        return verify(
            claim,
            embedding,
            encoder.encode,
            against=against,
            model=opened.manifest.name,
            source=str(image),
            hashes=hashes,
        )


def _show(verdict: Verdict, language: Language) -> None:
    from overflight.station.words import say

    click.echo(f"{say(verdict.answer, language)}: {verdict.claim}")
    margin = "no counter-sentence" if verdict.margin is None else f"margin {verdict.margin:+.3f}"
    click.echo(
        f"  cosine {verdict.cosine:+.3f}, {margin}, above {verdict.percentile:.0f} % of sentences about other ground"
    )
    for counter in verdict.counters[:5]:
        click.echo(f"  {counter.cosine:+.3f}  {counter.text}  ({counter.rule})")
