"""Fill the card's tables from the measured results, so that no figure in it is typed by hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


def percent(share: float) -> str:
    """Return a share as per cent with one digit."""
    return f"{100 * share:.1f}"


def tabulate(heads: tuple[str, ...], rows: list[tuple[object, ...]], words: int = 1) -> str:
    """Return a Markdown table whose first `words` columns are text and whose others are numbers."""
    rule = "|" + "---|" * words + "--:|" * (len(heads) - words)
    lines = [" | ".join(str(cell) for cell in row) for row in [heads, *rows]]
    return "\n".join([f"| {lines[0]} |", rule, *(f"| {line} |" for line in lines[1:])])


def tell_summary(found: Any) -> str:
    """Return the table of the first screen."""
    held, training = found["zero_shot"]["held out"], found["zero_shot"]["training"]
    low, high = held["ensemble_interval95"]
    trained, untrained = found["probe"]["checkpoint"], found["probe"]["untrained start"]
    rows: list[tuple[object, ...]] = [
        (
            f"zero-shot top-1, 30 AID scenes, test split, {held['templates']} held-out templates as one ensemble",
            f"**{percent(held['ensemble_top1'])} %** (95 % interval {percent(low)} to {percent(high)}, "
            f"{found['model']['images']['test']} images)",
        ),
        (
            "the same, one held-out template at a time",
            f"mean {percent(held['single_mean'])} %, worst {percent(held['single_min'])} %, "
            f"best {percent(held['single_max'])} %",
        ),
        (
            "`a satellite photo of {name}` (RemoteCLIP's template, held out here)",
            f"{percent(held['single']['a satellite photo of {name}'])} %",
        ),
        (
            "plain names; ensemble of the training templates",
            f"{percent(found['zero_shot']['plain names'])} %; {percent(training['ensemble_top1'])} %",
        ),
        (
            "linear probe; 20 nearest neighbours on its embeddings",
            f"{percent(trained['linear_probe'])} %; {percent(trained['knn_20'])} %",
        ),
        (
            "the untrained start (first 6 pretrained blocks, mean token): linear probe; neighbours",
            f"{percent(untrained['linear_probe'])} %; {percent(untrained['knn_20'])} %",
        ),
        *((f"published: {name}", f"{percent(share)} %") for name, share in found["published"].items()),
    ]
    return tabulate(("", ""), rows, 2)


def tell_scenes(found: Any) -> str:
    """Return recall and precision of every scene, worst first."""
    rows = sorted(found["scenes"]["rows"].items(), key=lambda item: (item[1]["recall"], item[0]))
    return tabulate(
        ("scene", "images", "recall %", "precision %", "most mistaken for"),
        [
            (
                name,
                row["images"],
                percent(row["recall"]),
                percent(row["precision"]),
                f"{row['mistaken_for']} ({row['mistakes']})" if row["mistaken_for"] else "",
            )
            for name, row in rows
        ],
    )


def tell_retrieval(found: Any) -> str:
    """Return recall at 1, 5 and 10 both ways."""
    kept = found["retrieval"]
    rows = [
        (way.replace("_", " "), *(percent(kept[f"{way}_R@{depth}"]) for depth in (1, 5, 10)))
        for way in ("image_to_text", "text_to_image")
    ]
    return tabulate(("", "R@1", "R@5", "R@10"), [*rows, ("mean of all six", "", "", percent(kept["mean_recall"]))])


def tell_paraphrases(found: Any) -> str:
    """Return the paraphrases' shares, and each one's."""
    kept = found["open_vocabulary"]
    shares = tabulate(
        ("thirty paraphrases of the scenes", "%"),
        [
            ("top-1 with all of them as the bank", percent(kept["paraphrases_top1"])),
            (
                "images of a scene kept by its paraphrase among 29 proper names",
                percent(kept["paraphrase_for_one_scene_recall"]),
            ),
            ("paraphrases nearest to their own name", percent(kept["nearest_name_is_own"])),
            ("own scene among a paraphrase's ten best images", percent(kept["precision_at_10"])),
        ],
    )
    each = tabulate(
        ("paraphrase", "scene", "nearest name", "recall %", "right of best 10 %"),
        [
            (text, one["scene"], one["nearest"], percent(one["recall"]), percent(one["precision_at_10"]))
            for text, one in kept["paraphrases"].items()
        ],
        3,
    )
    return f"{shares}\n\n{each}"


def tell_field(found: Any) -> str:
    """Return the company that things of the field keep."""
    return tabulate(
        ("text", "nearest scene names", "scenes of its ten best images"),
        [
            (
                text,
                ", ".join(one["nearest"]),
                ", ".join(f"{name} {count}" for name, count in one["scenes_of_best_10"].items()),
            )
            for text, one in found["open_vocabulary"]["field"].items()
        ],
        3,
    )


def tell_open_set(found: Any) -> str:
    """Return how well known and unknown scenes are distinguished."""
    kept = found["open_set"]
    return tabulate(
        (f"without {', '.join(kept['removed'])} in the bank", ""),
        [
            ("AUROC of known against unknown by the best cosine", f"**{kept['auroc_best_cosine']:.3f}**"),
            ("the same by the softmax", f"{kept['auroc_softmax']:.3f}"),
            ("unknown accepted where 95 % of the known are, %", percent(kept["unknown_accepted_at_95_known"])),
            ("top-1 of the known, %", percent(kept["known_top1"])),
        ],
    )


def tell_calibration(found: Any) -> str:
    """Return the calibration errors before and after scale and bias were fitted."""
    return tabulate(
        ("", "scale", "bias", "ECE, all pairs", "ECE, best label", "mean best probability %", "top-1 %"),
        [
            (
                label,
                f"{one['scale']:.2f}",
                f"{one['bias']:.2f}",
                f"{one['ece_pairs']:.4f}",
                f"{one['ece_best_label']:.4f}",
                percent(one["mean_best_probability"]),
                percent(one["top1"]),
            )
            for label, one in found["calibration"].items()
            if isinstance(one, dict)
        ],
    )


def tell_robustness(found: Any) -> str:
    """Return top-1 under every damage."""
    held = found["zero_shot"]["held out"]["ensemble_top1"]
    rows = [("none", held), *found["robustness"].items()]
    return tabulate(("damage at 150 px", "top-1 %"), [(name, percent(share)) for name, share in rows])


PARTS: dict[str, Callable[[Any], str]] = {
    "summary": tell_summary,
    "scenes": tell_scenes,
    "retrieval": tell_retrieval,
    "paraphrases": tell_paraphrases,
    "field": tell_field,
    "open-set": tell_open_set,
    "calibration": tell_calibration,
    "robustness": tell_robustness,
}


def render(card: str, found: Any) -> str:
    """Return the card with every part between its marks written again. Raises ValueError for a missing mark."""
    for name, tell in PARTS.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if card.count(begin) != 1 or card.count(end) != 1:
            raise ValueError(f"the card has no single pair of marks {begin} {end}; put it where the table belongs")
        before, _, rest = card.partition(begin)
        card = f"{before}{begin}\n{tell(found)}\n{end}{rest.partition(end)[2]}"
    return card


def main() -> None:
    """Fill the tables of the card from the results file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--card", type=Path, default=HERE / "README.md")
    args = parser.parse_args()
    found = json.loads(args.results.read_text(encoding="utf-8"))
    args.card.write_text(render(args.card.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
