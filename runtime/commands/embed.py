"""``overflight embed``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A file ending in .npz or .parquet.")
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle.  [default: the default model's]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(images: tuple[Path, ...], out: Path, bundle: Path | None, as_json: bool) -> None:
    """Write the unit embeddings of pictures to a file.

    IMAGES are files, folders or quoted patterns. Pictures that cannot be read are named at the end.

    \b
    overflight embed survey/ -o survey.npz
    """
    import msgspec

    from overflight.runtime.embeddings import embed_files
    from overflight.runtime.errors import SourceError

    written = embed_files([str(image) for image in images], out, bundle)
    if as_json:
        click.echo(msgspec.json.encode(written))
    else:
        click.echo(f"{written.count} embeddings of {written.width} numbers in {out}")
    if written.unreadable:
        raise SourceError("; ".join(written.unreadable))
