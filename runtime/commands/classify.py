"""``overflight classify``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="A label bank.  [default: the bundle's]")
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle.  [default: the default model's]")
@click.option("--json", "as_json", is_flag=True, help="Print every observation as a JSON line.")
def command(images: tuple[Path, ...], labels: Path | None, bundle: Path | None, as_json: bool) -> None:
    """Label pictures.

    IMAGES are files and folders. A picture that cannot be read is named at the end; the others are labelled all the
    same.

    \b
    overflight classify meadow.jpg --labels bank.safetensors
    """
    from dataclasses import replace

    from overflight.runtime import Overflight
    from overflight.runtime.errors import NoSourceError, SourceError
    from overflight.runtime.records import encode_line
    from overflight.runtime.sources.image import read_image
    from overflight.runtime.sources.stills import Stills, unreadable_stills

    unreadable = []
    paths = [path for image in images for path in (Stills.of_folder(image).paths if image.is_dir() else (image,))]
    with Overflight.load(bundle, labels) as overflight:
        for number, path in enumerate(paths):
            try:
                observation = overflight.classify(replace(read_image(path, number), name=path.as_posix()))
            except NoSourceError:
                raise
            except SourceError as error:
                unreadable.append(error)
                continue
            if as_json:
                click.echo(encode_line(observation), nl=False)
                continue
            click.echo(f"{path}: {observation.label or 'unknown'}")
            for score in observation.scores:
                share = "" if score.share is None else f"  share {score.share:6.1%}"
                click.echo(f"    {score.score:6.1%}  cosine {score.cosine:+.3f}{share}  {score.label}")
    if unreadable:
        raise SourceError(unreadable_stills(unreadable, len(paths)))
