"""An aircraft on this machine: a home, a flight that can be restarted, and a real sshd on loopback that leads to it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import Bundle, seal
from overflight.station.deploy.running import Running
from overflight.station.deploy.update import Update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Aircraft:
    """A home folder with a flight that ``restart`` restarts, as a service manager would."""

    home: Path
    port: int
    scratch: Path
    said: list[str] = field(default_factory=list)

    @property
    def restart(self) -> str:
        """The command that restarts the flight."""
        return str(self.scratch / "restart.sh")

    def update(self, **changes: Any) -> Update:
        """Return the update of this aircraft, without engines to build, and with little patience."""
        given: dict[str, Any] = {"within_s": 20.0, "build": False, "report": self.said.append, **changes}
        return Update(self.home, given.pop("running", Running(self.port, self.restart)), **given)

    def install(self, lines: str = "") -> None:
        """Write the restart command; ``lines`` run before the flight, which is left out where they exit."""
        script = self.scratch / "restart.sh"
        script.write_text(
            f"""#!/bin/sh
[ -f {self.scratch}/pid ] && kill -9 $(cat {self.scratch}/pid) 2> /dev/null
rm -f {self.scratch}/pid
{lines}
export OVERFLIGHT_HOME={self.home} PYTHONPATH={ROOT}/src
current={self.home}/deployments/current
setsid {sys.executable} -m overflight run 'test://?fps=10&size=64x48' --bundle $current/bundle \\
  --labels $current/bank.safetensors --watch-bank --health {self.port} --out {self.scratch}/flights/$(date +%s%N) \\
  > {self.scratch}/flight.log 2>&1 < /dev/null &
echo $! > {self.scratch}/pid
"""
        )
        script.chmod(0o755)

    def stop(self) -> None:
        """End the flight."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.scratch / "pid").read_text()), signal.SIGKILL)


@pytest.fixture
def aircraft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aircraft]:
    """Return an aircraft with nothing deployed and nothing running."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("OVERFLIGHT_HOME", str(home))
    made = Aircraft(home, free_port(), tmp_path / "scratch")
    made.install()
    yield made
    made.stop()


@pytest.fixture
def make_bundle(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> Callable[..., Bundle]:
    """Return what makes bundles that differ in name, each with its own bank."""

    def make(name: str, **changes: Any) -> Bundle:
        folder = tmp_path / "ground" / name
        shutil.copytree(colour_bundle.directory, folder)
        (folder / "labels").mkdir()
        manifest = msgspec.structs.replace(colour_bundle.manifest, name=name, **changes)
        header = msgspec.structs.replace(colour_bank.header, name=f"bank of {name}", tower=manifest.tower)
        LabelBank.make(header, colour_bank.vectors).save(folder / "labels" / "own.safetensors")
        return seal(folder, manifest)

    return make


@pytest.fixture
def make_bank(colour_bank: LabelBank, tmp_path: Path) -> Callable[[str], Path]:
    """Return what makes banks that differ in name."""

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.safetensors"
        LabelBank.make(msgspec.structs.replace(colour_bank.header, name=name), colour_bank.vectors).save(path)
        return path

    return make


@pytest.fixture
def spoil() -> Callable[[Bundle], Bundle]:
    """Return what makes a bundle's engine answer NaN, sealed as if that were right."""
    onnx = pytest.importorskip("onnx")

    def change(bundle: Bundle) -> Bundle:
        path = bundle.directory / "image.onnx"
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.name == "centre":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), "centre"))
        onnx.save(model, path)
        return seal(bundle.directory, bundle.manifest)

    return change


@dataclass(frozen=True)
class Sshd:
    """A real sshd on loopback: how it is reached, and the process that serves a connection."""

    ssh: str
    program: str
    server: int

    @property
    def arguments(self) -> list[str]:
        """The options of deploy that lead here."""
        return ["--ssh", self.ssh, "--program", self.program]

    def cut(self) -> int:
        """Kill every connection that is open, as a lost radio would; returns how many."""
        found = subprocess.run(["pgrep", "-P", str(self.server)], capture_output=True, text=True, check=False).stdout
        for process in found.split():
            with contextlib.suppress(OSError):
                os.kill(int(process), signal.SIGKILL)
        return len(found.split())


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """Start sshd with keys of its own."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd: apt-get install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # its fixed place for the unprivileged child
    folder, port = tmp_path / "ssh", free_port()
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
    )
    server = subprocess.Popen([program, "-D", "-E", folder / "log", "-f", config])
    end = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.05)
    wrapper = tmp_path / "overflight"
    wrapper.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={ROOT}/src OVERFLIGHT_HOME={tmp_path}/home "
        f'OVERFLIGHT_TRUSTED_KEYS={os.environ["OVERFLIGHT_TRUSTED_KEYS"]}\nexec {sys.executable} -m overflight "$@"\n'
    )
    wrapper.chmod(0o755)
    ssh = (
        f"ssh -p {port} -i {folder}/user -l {getpass.getuser()} -o IdentitiesOnly=yes -F none "
        f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known -o LogLevel=ERROR"
    )
    yield Sshd(ssh, str(wrapper), server.pid)
    server.kill()
    server.wait()
