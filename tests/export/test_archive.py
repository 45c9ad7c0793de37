"""Torch files are read as archives: every form that trainings leave, and nothing in a pickle runs."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.export.archive import read_archive
from overflight.export.checkpoint import Checkpoint
from overflight.runtime.errors import UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def weights() -> dict[str, Any]:
    """Tensors of every dtype, one of them transposed, one a part of another."""
    torch.manual_seed(0)
    table = torch.randn(6, 4)
    return {
        "visual.proj": table,
        "text_projection": table.T,
        "ln_final.weight": table[2],
        "half": table.half(),
        "brain": table.bfloat16(),
        "double": table.double(),
        "logit_scale": torch.tensor(3.5),
        "steps": torch.tensor(7),
    }


def check(path: Path) -> None:
    """Compare what the archive reads with torch's own tensors."""
    found = read_archive(path).tensors
    for name, expected in weights().items():
        assert found[name].shape == tuple(expected.shape)
        if expected.is_floating_point():
            assert np.array_equal(found[name].read(), expected.float().numpy())
    assert found["steps"].dtype == "I64"
    assert b"".join(found["text_projection"].pieces()) == weights()["text_projection"].contiguous().numpy().tobytes()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_reads_as_torch_reads_it(tmp_path: Path, legacy: bool) -> None:
    """The zip form, and the form before torch 1.6."""
    torch.save(weights(), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    check(tmp_path / "w.pt")


WRAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ordered": OrderedDict,
    "state_dict": lambda w: {
        "epoch": 3,
        "name": "run",
        "state_dict": w,
        "optimizer": {"state": {0: {"exp": w["half"]}}},
    },
    "model": lambda w: {"model": w, "args": None, "step": 4},
    "parameters": lambda w: {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in w.items()},
    "foreign objects": lambda w: {"state_dict": w, "config": Path("x"), "values": np.float64(3.0)},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_what_a_training_wraps_around_is_removed(tmp_path: Path, wrapping: str) -> None:
    """Epoch dicts, dicts named model, parameters, objects of classes that nobody needs."""
    torch.save(WRAPPINGS[wrapping](weights()), tmp_path / "w.pt")
    check(tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "_orig_mod.module."])
def test_prefixes_of_every_name_are_removed(tmp_path: Path, prefix: str) -> None:
    """Data parallel, Lightning and torch.compile put words before every name."""
    torch.save({f"{prefix}{name}": tensor for name, tensor in weights().items()}, tmp_path / "w.pt")
    assert Checkpoint.open(tmp_path / "w.pt").names == weights().keys()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_archive_is_read_and_not_run(tmp_path: Path) -> None:
    """Parameters and buffers of all modules, by the names that state_dict gives them."""

    class Inner(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Linear(4, 3)
            self.register_buffer("mask", torch.ones(2))

        def forward(self, x: Any) -> Any:
            return self.proj(x)

    class Outer(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.visual = Inner()
            self.logit_scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Any) -> Any:
            return self.visual(x)

    module = torch.jit.trace(Outer(), torch.zeros(1, 4))
    torch.jit.save(module, str(tmp_path / "m.pt"))
    archive = read_archive(tmp_path / "m.pt")
    assert archive.tensors.keys() == module.state_dict().keys()
    for name, expected in module.state_dict().items():
        assert np.array_equal(archive.tensors[name].read(), expected.numpy())
    assert any(name.endswith("Inner") for name in archive.classes)


class Bomb:
    """An object whose unpickling would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    """Code in a pickle stays unrun, whether the file is refused or read."""
    bomb = Bomb(tmp_path / "ran")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"state_dict": bomb}))
    torch.save({"state_dict": bomb}, tmp_path / "inside.pt")
    torch.save({"state_dict": weights(), "extra": bomb}, tmp_path / "next.pt")
    for name in ("raw.pt", "inside.pt"):
        with pytest.raises(UsageError, match=r"not a complete torch file|no weights by name"):
            read_archive(tmp_path / name)
    check(tmp_path / "next.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": {"x": 1}}, "contains a, but no weights by name"),
        ([1, 2], "contains a list, expected the weights of a model"),
        ({}, "contains nothing, but no weights by name"),
        ({"model": {"w": torch.ones(1)}, "ema": {"w": torch.ones(1)}}, r"several models \(model, ema\)"),
        ({"w": torch.ones(1), "nested": {"x": torch.ones(1)}}, "nested in the file is a dict, expected a tensor"),
        (torch.ones(3), "contains a single tensor"),
        ({"blip.x": torch.ones(1)}, "its tensors are not those of a CLIP or SigLIP model"),
        ({"visual.x.lora_A": torch.ones(1)}, "contains LoRA weights: merge them first"),
        ({"visual.mlp.theta": torch.ones(1), "visual.mlp.r": torch.ones(1)}, r"\(GmP\): convert them to plain weights"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, content: Any, said: str) -> None:
    """One line that says what was found."""
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=said) as caught:
        Checkpoint.open(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_is_one_line(tmp_path: Path, legacy: bool) -> None:
    """Cut anywhere, or a byte changed anywhere: refused, or still the same tensors' names and shapes."""
    torch.save(weights(), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "w.pt").read_bytes()
    path = tmp_path / "damaged.pt"
    steps = range(0, len(whole), max(1, len(whole) // 150))
    pieces = [whole[:cut] for cut in steps] + [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in steps]
    for content in pieces:
        path.write_bytes(content)
        try:
            for tensor in read_archive(path).tensors.values():
                b"".join(tensor.pieces())
        except UsageError as error:
            assert "\n" not in str(error)
