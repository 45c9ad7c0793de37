"""``overflight evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from overflight.station.evaluate.table import Evaluation

_PATH: Any = click.Path(path_type=Path)
_TASKS = (
    "zero-shot", "linear-probe", "knn", "few-shot", "retrieval", "captions", "corruptions", "open-set", "calibration",
    "scale", "counting", "localisation",
)  # fmt: skip


@click.command()
@click.argument("bundle", type=_PATH)
@click.argument("dataset", type=_PATH)
@click.option("--task", "tasks", multiple=True, type=click.Choice(_TASKS), help="Repeatable.  [default: all that fit]")
@click.option("--as", "known", metavar="NAME", help="Check that DATASET is this published set, such as aid or eurosat.")
@click.option(
    "--split", default="test", show_default=True, type=click.Choice(["train", "valid", "test"]), help="Split."
)
@click.option("--templates", default="remoteclip", show_default=True, help="A shipped set of prompt templates.")
@click.option("--classes", type=_PATH, help="JSON: the name of each class folder.")
@click.option("--object", "thing", help="Counting and localisation: the class whose boxes count.")
@click.option("--captions", type=_PATH, help="JSON lines with file and caption, to be scored.")
@click.option("--cache", type=_PATH, help="A folder in which embeddings are kept for the next run.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Engine threads; 0: the library's choice.")
@click.option("--out", type=_PATH, help="Write the table here: .md or .json.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(
    bundle: Path,
    dataset: Path,
    tasks: tuple[str, ...],
    known: str | None,
    split: str,
    templates: str,
    classes: Path | None,
    thing: str | None,
    captions: Path | None,
    cache: Path | None,
    threads: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure a bundle on a data set by published protocols.

    DATASET is a folder with a folder for each class, a captions file (RSICD, RSITMD, UCM, LEVIR-CC), a COCO instances
    file, or a folder of pictures with YOLO boxes next to them. Every row names protocol, split, prompts and interval;
    published figures are marked as such. BUNDLE "default" is the default model's.

    \b
    overflight evaluate default AID/ --as aid --task zero-shot --task linear-probe
    overflight evaluate RemoteCLIP/ dataset_rsicd.json --task retrieval
    """
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.progress import shown_progress
    from overflight.station.evaluate.adapters import open_as
    from overflight.station.evaluate.datasets import open_dataset
    from overflight.station.evaluate.objects import evaluate_objects, holds_boxes
    from overflight.station.evaluate.run import evaluate
    from overflight.station.output import check_outputs

    check_outputs([out], (".md", ".json"))
    opened = Bundle.open(default_bundle() if str(bundle) == "default" else bundle)
    with shown_progress() as report:
        if holds_boxes(dataset):
            found = evaluate_objects(opened, dataset, tasks, thing=thing, templates=templates, report=report)
        else:
            names = _names(classes)
            data = open_as(known, dataset) if known else open_dataset(dataset, names)
            found = evaluate(
                opened, data, tasks, report=report, split=split, templates=templates, cache=cache,
                predictions=_captions(captions), threads=threads,
            )  # fmt: skip
    _write(found, out, as_json=as_json)


def _names(path: Path | None) -> dict[str, str] | None:
    from overflight.runtime.errors import UsageError

    if path is None:
        return None
    try:
        return {str(folder): str(name) for folder, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: expected a JSON object with a class name for each folder ({error!r})") from error


def _captions(path: Path | None) -> dict[str, str] | None:
    from overflight.runtime.errors import UsageError

    if path is None:
        return None
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {str(one["file"]): str(one["caption"]) for one in lines}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: expected JSON lines with file and caption ({error!r})") from error


def _write(found: Evaluation, out: Path | None, *, as_json: bool) -> None:
    import msgspec

    from overflight.runtime.durable import write_atomically
    from overflight.station.evaluate.table import as_markdown

    raw = msgspec.json.encode(found)
    if out is not None:
        write_atomically(
            out, msgspec.json.format(raw, indent=1) if out.suffix.lower() == ".json" else as_markdown(found).encode()
        )
    click.echo(raw.decode() if as_json else as_markdown(found))
