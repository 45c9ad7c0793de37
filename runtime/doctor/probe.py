"""Load a library in a child process, so that one that crashes takes nothing with it, and report what it said."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 60
_IMPORT = "import json, {name} as it; print(json.dumps(str(getattr(it, '__version__', ''))))"
# One Identity node, opset 13, ONNX IR 8: enough to make a session with each provider and ask which it really got.
_IDENTITY = (
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a0808"
    "0112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
_PROVIDERS = """
import json, onnxruntime as ort
ort.set_default_logger_severity(4)
getattr(ort, "preload_dlls", lambda: None)()  # CUDA that came as wheels is found this way only
graph = bytes.fromhex("{graph}")
got = {{}}
for provider in ort.get_available_providers():
    try:
        session = ort.InferenceSession(graph, providers=[provider])
        got[provider] = provider in session.get_providers()
    except Exception as error:
        got[provider] = False
print(json.dumps(got))
"""
_CUDA = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
count, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
code = cuda.cuInit(0)
if code: raise SystemExit(f"cuInit failed with error {code}")
cuda.cuDeviceGetCount(ctypes.byref(count)); cuda.cuDriverGetVersion(ctypes.byref(version))
cuda.cuDeviceGetName(name, 256, 0)
print(json.dumps({"count": count.value, "cuda": version.value, "name": name.value.decode()}))
"""


@dataclass(frozen=True)
class ProbeResult:
    """What a child printed, or why it did not: the last line of its complaint, or the signal that ended it."""

    answer: Any = None
    error: str | None = None


def load(library: str) -> ProbeResult:
    """Import a library in a child and return its version."""
    return _run(_IMPORT.format(name=library))


def providers() -> ProbeResult:
    """Make an ONNX Runtime session with every provider on offer; answers provider -> whether the session got it."""
    return _run(_PROVIDERS.format(graph=_IDENTITY))


def cuda() -> ProbeResult:
    """Initialise the CUDA driver; answers the number of devices, the driver's CUDA version and the first's name."""
    return _run(_CUDA)


def _run(code: str) -> ProbeResult:
    try:
        child = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return ProbeResult(error=str(error))
    if child.returncode < 0:
        return ProbeResult(error=f"ended by signal {-child.returncode}")
    if child.returncode:
        return ProbeResult(error=(child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1])
    try:
        return ProbeResult(answer=json.loads(child.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        return ProbeResult(error=f"said {child.stdout.strip()[-80:]!r}")
