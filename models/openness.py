"""Ask what lies outside the training words: unknown scenes, paraphrases, things of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.export.statistics import auroc
from overflight.models import measures
from overflight.models.scenes import HELD_OUT_TEMPLATES, name_scene

if TYPE_CHECKING:
    from overflight.models.reading import Checkpoint

REMOVED = ("airport", "church", "desert", "port", "stadium", "viaduct")
NEIGHBOURS = 3


def measure_open_set(
    images: np.ndarray,
    truth: np.ndarray,
    bank: np.ndarray,
    names: list[str],
    checkpoint: Checkpoint,
) -> dict[str, object]:
    """Return how well the best score tells known scenes from six that the bank does not hold.

    The model has seen images of all thirty scenes: this is about a bank that lacks them.
    """
    kept = np.array([name not in REMOVED for name in names])
    known = kept[truth]
    cosines = images @ bank[kept].T
    best = cosines.max(1)
    logits = checkpoint.scale * cosines
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    place = np.cumsum(kept) - 1
    right = known & (cosines.argmax(1) == place[truth])
    per_scene = {name: auroc(best[known], best[truth == row]) for row, name in enumerate(names) if not kept[row]}
    threshold = float(np.quantile(best[known], 0.05))
    return {
        "removed": list(REMOVED),
        "auroc_best_cosine": auroc(best[known], best[~known]),
        "auroc_softmax": auroc(softmax.max(1)[known], softmax.max(1)[~known]),
        "auroc_right_against_unknown": auroc(best[right], best[~known]),
        "unknown_accepted_at_95_known": float((best[~known] >= threshold).mean()),
        "auroc_by_scene": per_scene,
        "known_top1": float(right.sum() / known.sum()),
    }


def measure_vocabulary(
    checkpoint: Checkpoint,
    images: np.ndarray,
    truth: np.ndarray,
    scenes: list[str],
    texts: dict[str, object],
) -> dict[str, object]:
    """Return what texts that never occur in a caption find: accuracy, neighbours, best images."""
    paraphrases, field = texts["paraphrases"], texts["field"]
    assert isinstance(paraphrases, dict)
    assert isinstance(field, list)
    names = [name_scene(scene) for scene in scenes]
    phrases = [paraphrases[scene] for scene in scenes]
    bank = checkpoint.embed_bank(names, HELD_OUT_TEMPLATES)
    other = checkpoint.embed_bank(phrases, HELD_OUT_TEMPLATES)
    swapped = []
    for row in range(len(names)):
        mixed = bank.copy()
        mixed[row] = other[row]
        own = images[truth == row] @ mixed.T
        swapped.append(float((own.argmax(1) == row).mean()))
    nearest = (other @ bank.T).argmax(1)
    ranked = (other @ images.T).argsort(1)[:, ::-1][:, :10]
    things = checkpoint.embed_bank(field, HELD_OUT_TEMPLATES)
    near = (things @ bank.T).argsort(1)[:, ::-1][:, :NEIGHBOURS]
    seen = (things @ images.T).argsort(1)[:, ::-1][:, :10]
    return {
        "paraphrases_top1": measures.top1(images @ other.T, truth),
        "paraphrase_for_one_scene_recall": float(np.mean(swapped)),
        "nearest_name_is_own": float((nearest == np.arange(len(names))).mean()),
        "precision_at_10": float((truth[ranked] == np.arange(len(names))[:, None]).mean()),
        "paraphrases": {
            phrases[row]: {
                "scene": names[row],
                "nearest": names[nearest[row]],
                "recall": swapped[row],
                "precision_at_10": float((truth[ranked[row]] == row).mean()),
            }
            for row in range(len(names))
        },
        "field": {
            text: {
                "nearest": [names[column] for column in near[row]],
                "scenes_of_best_10": count_names(truth[seen[row]], names),
            }
            for row, text in enumerate(field)
        },
    }


def count_names(rows: np.ndarray, names: list[str]) -> dict[str, int]:
    """Return how often each name occurs, most often first."""
    values, counts = np.unique(rows, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {names[values[place]]: int(counts[place]) for place in order}
