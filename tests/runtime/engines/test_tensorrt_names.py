"""Every TensorRT name in the code exists in 10.3, 10.13 and 11.4 alike, as read from the real bindings."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SNAPSHOTS = Path(__file__).with_name("tensorrt_api")
SOURCES = [
    ROOT / "runtime" / "engines" / "tensorrt.py",
    ROOT / "runtime" / "engines" / "tensorrt_messages.py",
    ROOT / "export" / "plan.py",
    ROOT / "export" / "inspection.py",
]
# What the code calls the library's objects, so that their methods can be looked up.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
}


def chain(node: ast.expr) -> list[str]:
    """Turn ``a.b.c`` into its names."""
    match node:
        case ast.Attribute(value=value, attr=attr):
            return [*chain(value), attr]
        case ast.Name(id=name):
            return [name]
        case _:
            return ["?"]


def used(path: Path) -> set[tuple[str, ...]]:
    """Collect (class,) and (class, member) of every TensorRT name in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute):
            continue
        names = chain(node)
        if names[0] == "self":
            names = names[1:]
        if names[-1].startswith("__"):
            continue
        if names[0] == "trt":
            found.add(tuple(names[1:3]))
        elif names[0] in CLASSES and len(names) > 1:
            found.add((CLASSES[names[0]], names[1]))
    return found


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3", "11.4.0"])
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_name_used_exists(path: Path, version: str) -> None:
    """A removed flag or method would only show in the field, on the one board that has that version."""
    api: dict[str, Any] = json.loads((SNAPSHOTS / f"{version}.json").read_text())["names"]
    names = used(path)
    assert len(names) >= 3
    for name, *member in sorted(names):
        assert name in api, f"trt.{name} is not in {version}"
        known = {*api[name].get("enum", ()), *api[name].get("members", ())}
        assert not member or member[0] in known, f"trt.{name}.{member[0]} is not in {version}"


def test_the_scan_finds_a_removed_name(tmp_path: Path) -> None:
    """It would notice ``BuilderFlag.FP16``, which 11 no longer has."""
    source = tmp_path / "old.py"
    source.write_text("config.set_flag(trt.BuilderFlag.FP16)\nself._context.execute_async_v3(1)\n")
    names = used(source)
    assert names == {("BuilderFlag", "FP16"), ("BuilderFlag",), ("IBuilderConfig", "set_flag")} | {
        ("IExecutionContext", "execute_async_v3")
    }
    api = json.loads((SNAPSHOTS / "11.4.0.json").read_text())["names"]
    assert "FP16" not in api["BuilderFlag"]["enum"]


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("IExecutionContext", "set_device_memory"),
        ("IExecutionContext", "set_optimization_profile_async"),
        ("IExecutionContext", "set_input_shape"),
        ("IExecutionContext", "set_tensor_address"),
        ("IExecutionContext", "execute_async_v3"),
        ("ILogger", "log"),
    ],
)
def test_the_fakes_take_what_the_real_bindings_take(tensorrt_fakes: dict[str, type], kind: str, method: str) -> None:
    """The same arguments by the same names, as the bindings of TensorRT for RTX state them."""
    bindings = pytest.importorskip("tensorrt_rtx", reason="the bindings need: pip install tensorrt-rtx")
    lines = getattr(getattr(bindings, kind), method).__doc__.splitlines()
    stated = [re.findall(r"[(,] ?(\w+): ", line) for line in lines if f"{method}(self" in line]
    ours = list(inspect.signature(getattr(tensorrt_fakes[kind], method)).parameters)
    assert ours in stated
