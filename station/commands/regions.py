"""``overflight regions``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("boxes", type=_PATH)
@click.option("--images", type=_PATH, help="The folder of the pictures.  [default: that of BOXES]")
@click.option("--image", type=_PATH, help="The one picture, for a list of COCO results.")
@click.option("--labels", default="description", show_default=True, help="A bank, a label file, or a shipped name.")
@click.option("--bundle", type=_PATH, help="A bundle.  [default: the default model's]")
@click.option("--out", "-o", type=_PATH, help="The labelled COCO JSON.  [default: printed]")
def command(
    boxes: Path, images: Path | None, image: Path | None, labels: str, bundle: Path | None, out: Path | None
) -> None:
    """Label the boxes of a detector: COCO JSON in, COCO JSON out.

    BOXES is COCO JSON with images and annotations, or a list of results together with --image. The labels are those of
    the bank's group "cover", or else of its largest group.

    \b
    overflight regions detections.json --labels infrastructure -o labelled.json
    """
    import msgspec

    from overflight.export.shipped_labels import bank_of
    from overflight.runtime.durable import write_atomically
    from overflight.station.ground.towers import image_tower, open_bundle
    from overflight.station.output import check_outputs
    from overflight.station.regions import label_boxes, read_boxes

    check_outputs([out])
    opened = open_bundle(bundle)
    file = read_boxes(boxes, None if image is None else image.resolve())
    bank = bank_of(labels, opened)
    with image_tower(opened) as embed:
        labelled = label_boxes(file, images or boxes.parent, bank, embed)
    raw = msgspec.json.format(msgspec.json.encode(labelled), indent=1) + b"\n"
    if out is None:
        click.echo(raw.decode(), nl=False)
        return
    write_atomically(out, raw)
    info = labelled["info"]
    left_out = info["too_small_or_outside"]
    click.echo(
        f"{out}: {len(labelled['annotations'])} regions labelled, {left_out} too small or outside, "
        f"{info['without_box']} without a box, {info['without_picture']} of pictures that are not listed"
    )
    for line in info["unreadable"]:
        click.echo(f"not read: {line}", err=True)
