"""``overflight changes``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle
    from overflight.station.changes.compare import Result
    from overflight.station.words import Language

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("before", type=_PATH)
@click.argument("after", type=_PATH)
@click.option("--labels", default="description", show_default=True, help="A bank, a label file, or a shipped name.")
@click.option("--bundle", type=_PATH, help="A bundle.  [default: the default model's]")
@click.option("--background", nargs=2, type=_PATH, multiple=True, help="A pair without a change; repeatable.")
@click.option("--gsd", "gsd_m", type=float, help="Metres of ground a pixel, where the files do not say.")
@click.option("--tile", "tile_px", type=click.IntRange(16, 8192), help="Side of a tile in pixels.")
@click.option("--false-alarm", type=Finite(0.0001, 0.5), default=0.01, show_default=True,
              help="Share of background tiles that may be called changed.")  # fmt: skip
@click.option(
    "--find", multiple=True, help="Rank the tiles by a change, such as 'new houses on bare soil'; repeatable."
)
@click.option("--ask", help="A question, such as 'did the number of buildings grow?'.")
@click.option("--answer", "answers", multiple=True, help="A given answer to --ask; give two or more.")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option(
    "--out", "-o", type=_PATH, multiple=True, help="Write .html, .png, .json, .gpkg, .geojson or .csv; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def command(
    before: Path, after: Path, find: tuple[str, ...], ask: str | None, answers: tuple[str, ...], **given: Any
) -> None:
    """Compare two dates of one ground: where it changed, and from what to what.

    BEFORE and AFTER are pictures of one shape, georeferenced files, or two flights, which are joined by footprints.
    The registration of pictures is checked first: small shifts are corrected, larger ones refused with the number.
    Pairs that only season or light altered (--background) teach what is not a change.

    \b
    overflight changes 2024.tif 2025.tif -o swipe.html -o changed.gpkg
    overflight changes a.png b.png --background dry.png green.png --ask "did the number of buildings grow?"
    """
    from overflight.station.archive.sources import is_flight
    from overflight.station.changes.question import understand
    from overflight.station.changes.write import FORMATS
    from overflight.station.output import check_outputs

    language, out, as_json = given.pop("language"), given.pop("out"), given.pop("as_json")
    if not all(text.strip() for text in find):
        raise click.UsageError("--find '': expected a change, such as 'new houses on bare soil'")
    if answers and (ask is None or len(set(answers)) < 2 or not all(text.strip() for text in answers)):
        raise click.UsageError("--answer: needs --ask, and is given twice or more, each with another text")
    if ask is not None and not answers:
        understand(ask)
    flown = is_flight(before) and is_flight(after)
    check_outputs(out, [one for one in FORMATS if not flown or one not in {".html", ".png"}])
    if flown:
        if find or ask is not None:
            raise click.UsageError("--find and --ask take pictures or mosaics; two flights are searched in an archive")
        _compare_flights(before, after, language, out, as_json=as_json, **given)
        return
    result, bundle = _compare(before, after, **given)
    for path in out:
        _write(result, path, language)
    found = _search(result, bundle, find)
    answer = _answer(result, bundle, ask, answers)
    if as_json:
        import msgspec

        shown = {"changes": result.changes, "found": found, "answer": answer}
        click.echo(msgspec.json.encode(result.changes if not find and ask is None else shown).decode())
        return
    _show(result, found, answer, language)


def _compare_flights(
    before: Path,
    after: Path,
    language: Language,
    out: tuple[Path, ...],
    *,
    as_json: bool,
    labels: str,
    bundle: Path | None,
    background: tuple[tuple[Path, Path], ...],
    gsd_m: float | None,
    tile_px: int | None,
    false_alarm: float,
) -> None:
    import msgspec

    from overflight.export.shipped_labels import bank_of
    from overflight.runtime.durable import write_atomically
    from overflight.station.changes.flights import compare_flights
    from overflight.station.changes.sentence import sentences
    from overflight.station.changes.write import export_changes
    from overflight.station.ground.towers import open_bundle

    if gsd_m is not None or tile_px is not None:
        raise click.UsageError("--gsd and --tile are for pictures: a flight has its own footprints and tiles")
    opened = open_bundle(bundle)
    bank = bank_of(labels, opened)
    changes = compare_flights(before, after, bank, opened.manifest, background=background, false_alarm=false_alarm)
    for path in out:
        if path.suffix.lower() == ".json":
            write_atomically(path, msgspec.json.format(msgspec.json.encode(changes), indent=1) + b"\n")
        else:
            export_changes(changes, path)
    if as_json:
        click.echo(msgspec.json.encode(changes).decode())
        return
    for line in (*sentences(changes, language), *changes.notes):
        click.echo(line)


def _compare(
    before: Path,
    after: Path,
    *,
    labels: str,
    bundle: Path | None,
    background: tuple[tuple[Path, Path], ...],
    gsd_m: float | None,
    tile_px: int | None,
    false_alarm: float,
) -> tuple[Result, Bundle]:
    from overflight.export.shipped_labels import bank_of
    from overflight.station.changes.compare import compare_pictures
    from overflight.station.ground.towers import image_tower, open_bundle

    opened = open_bundle(bundle)
    bank = bank_of(labels, opened)
    with image_tower(opened) as embed:
        result = compare_pictures(
            before,
            after,
            bank,
            opened.manifest,
            embed,
            background=background,
            tile_px=tile_px,
            gsd_m=gsd_m,
            false_alarm=false_alarm,
        )
    return result, opened


def _write(result: Result, path: Path, language: Language) -> None:
    import msgspec

    from overflight.runtime.durable import write_atomically
    from overflight.runtime.sources.image import opencv
    from overflight.station.changes.write import export_changes, heat_map, to_html

    match path.suffix.lower():
        case ".json":
            write_atomically(path, msgspec.json.format(msgspec.json.encode(result.changes), indent=1) + b"\n")
        case ".html":
            write_atomically(path, to_html(result.changes, result.compared, language))
        case ".png":
            _, encoded = opencv().imencode(".png", heat_map(result.changes, result.compared)[:, :, ::-1])
            write_atomically(path, bytes(encoded))
        case _:
            export_changes(result.changes, path)


def _search(result: Result, bundle: Bundle, find: tuple[str, ...]) -> dict[str, list[tuple[int, float]]]:
    if not find:
        return {}
    from overflight.export.encode import TextEncoder
    from overflight.export.prompts import read_templates
    from overflight.station.changes.retrieve import ChangeQuery, best_tiles
    from overflight.station.search.terms import embed_texts

    forms, pair = read_templates("aerial"), result.compared
    with TextEncoder(bundle) as encoder:
        return {
            text: best_tiles(
                ChangeQuery.parse(text), lambda texts: embed_texts(encoder, texts, forms), pair.before, pair.after
            )
            for text in find
        }


def _answer(result: Result, bundle: Bundle, ask: str | None, answers: tuple[str, ...]) -> Any:
    if ask is None:
        return None
    from overflight.export.encode import TextEncoder
    from overflight.export.prompts import read_templates
    from overflight.station.changes.question import answer, choose
    from overflight.station.search.terms import embed_texts

    forms, pair = read_templates("aerial"), result.compared
    with TextEncoder(bundle) as encoder:

        def embed(texts: Any) -> Any:
            return embed_texts(encoder, texts, forms)

        if answers:
            return choose(ask, answers, embed, pair.before, pair.after)
        return answer(ask, embed, pair.before, pair.after)


def _show(result: Result, found: dict[str, list[tuple[int, float]]], answer: Any, language: Language) -> None:
    from overflight.station.changes.sentence import sentences
    from overflight.station.words import say

    changes = result.changes
    for sentence in sentences(changes, language):
        click.echo(sentence)
    limits = changes.limits
    click.echo(f"limit {limits.high:.4f} from {limits.tiles} background tiles ({limits.origin})")
    for text, rows in found.items():
        click.echo(text)
        for row, score in rows:
            tile = changes.tiles[row]
            click.echo(f"  {score:+.3f}  tile {tile.row},{tile.column}" + ("  changed" if tile.changed else ""))
    if answer is not None:
        said = say(answer.answer, language) if answer.answer in {"yes", "no", "cannot tell"} else answer.answer
        click.echo(f"{answer.question} {said}  (gain {answer.gain:+.3f}, {answer.low:+.3f} to {answer.high:+.3f}; "
                   f"read as: {answer.read_as})")  # fmt: skip
    for note in changes.notes:
        click.echo(f"note: {note}", err=True)
