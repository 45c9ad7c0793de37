"""Checkpoints from the hub: only what is needed, resumed where it stopped, one line where there is no network.

Covers: export/commands/fetch.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from overflight.export.fetch import locate, locate_tokenizer
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import MissingError, UsageError

Tiny = Callable[..., Path]
pytest.importorskip("huggingface_hub")
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub on loopback that serves one directory as one repository, and remembers what was asked.

    ``cut`` names a file whose first download breaks off half-way; ``hashes`` replaces what the hub says of a file.
    """

    def __init__(self, directory: Path, name: str = "overflight/tiny") -> None:
        self.asked: list[str] = []
        self.cut: str | None = None
        self.hashes: dict[str, str] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def do_POST(self) -> None:
                """Say the size and hash of the files that are asked for, as the hub does of large ones."""
                wanted = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
                entries = []
                for path in wanted:
                    raw = (directory / Path(path).name).read_bytes()
                    sha256 = hub.hashes.get(path, hashlib.sha256(raw).hexdigest())
                    lfs = {"oid": sha256, "size": len(raw), "pointerSize": 134}
                    entries.append({"type": "file", "path": path, "size": len(raw), "oid": "0" * 40, "lfs": lfs})
                content = json.dumps(entries).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
                if path.startswith(f"/api/models/{name}/tree/"):
                    entries = [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                        for file in sorted(directory.iterdir())
                    ]
                    content = json.dumps(entries).encode()
                elif path.startswith(f"/api/models/{name}"):
                    names = [{"rfilename": file.name} for file in sorted(directory.iterdir())]
                    content = json.dumps({"id": name, "sha": _COMMIT, "siblings": names}).encode()
                elif path.startswith(f"/{name}/resolve/"):
                    content = (directory / path.rpartition("/")[2]).read_bytes()
                else:
                    content = b""
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
                found = bool(content)
                self.send_response((206 if start else 200) if found else 404)
                self.send_header("X-Repo-Commit", _COMMIT)
                self.send_header("ETag", f'"{abs(hash(content))}"')
                self.send_header("Content-Length", str(len(content) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                if not body:
                    return
                if hub.cut is not None and path.endswith(hub.cut):
                    hub.cut = None
                    self.wfile.write(content[start : start + len(content) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(content[start:])

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(tiny: Tiny) -> Iterator[Hub]:
    """A hub that holds a sharded tiny SigLIP, and files that nobody needs."""
    directory = tiny("siglip", shards=2)
    (directory / "pytorch_model.bin").write_bytes(b"a pickle")
    (directory / "README.md").write_text("a card")
    yield from serving(Hub(directory))


def serving(hub: Hub) -> Iterator[Hub]:
    """Serve until the test ends."""
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


@pytest.fixture
def mirror(tiny: Tiny) -> Iterator[Hub]:
    """A mirror with a SigLIP under the name of Git-RSCLIP, its weights larger than one piece of a download (10 MB)."""
    yield from serving(Hub(tiny("siglip", text={"vocab_size": 300_000}), "lcybuaa/Git-RSCLIP"))


def export_from(
    endpoint: str, home: Path, *arguments: str, command: str = "export"
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with a hub of its own; torch is kept out to keep it quick."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from overflight.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, command, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_hub_id_is_downloaded_and_exported(hub: Hub, tmp_path: Path) -> None:
    """Shards, settings and tokenizer are fetched; pickles and cards are not; the name is the repository's."""
    done = export_from(hub.url, tmp_path / "home", "overflight/tiny", str(tmp_path / "bundle"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "tiny"
    Bundle.open(tmp_path / "bundle").verify()
    fetched_names = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET /overflight")}
    assert "model-00001-of-00002.safetensors" in fetched_names
    assert not fetched_names & {"pytorch_model.bin", "README.md"}
    hub.asked.clear()
    again = export_from(hub.url, tmp_path / "home", "overflight/tiny", str(tmp_path / "other"))
    assert again.returncode == 0, again.stderr
    assert not [line for line in hub.asked if line.startswith("GET /overflight")], "what is cached is not fetched again"


def test_without_a_network_it_is_one_line_and_exit_3(tmp_path: Path) -> None:
    """A port where nobody listens."""
    done = export_from("http://127.0.0.1:9", tmp_path / "home", "overflight/tiny", str(tmp_path / "bundle"))
    assert done.returncode == 3
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("overflight: overflight/tiny: no such directory or file, and the hub did not deliver it")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_published_model_comes_from_a_mirror_and_resumes(mirror: Hub, tmp_path: Path) -> None:
    """A download that broke off goes on with a range; commit and hashes are recorded; the second time is cached."""
    mirror.cut = "model.safetensors"
    arguments = ("git-rsclip", str(tmp_path / "b"), "--from", mirror.url, "--accept-licence", "--json")
    done = export_from("http://127.0.0.1:9", tmp_path / "home", *arguments, command="fetch")
    assert done.returncode == 0, done.stderr
    origin = json.loads(done.stdout)["origin"]
    assert origin["revision"] == _COMMIT
    assert origin["repository"] == "lcybuaa/Git-RSCLIP"
    downloads = [line for line in mirror.asked if line.startswith("GET") and "model.safetensors" in line]
    assert len(downloads) == 2
    assert "bytes=" in downloads[1]
    mirror.asked.clear()
    again = export_from("http://127.0.0.1:9", tmp_path / "home", *arguments, "--replace", command="fetch")
    assert again.returncode == 0, again.stderr
    assert not [line for line in mirror.asked if line.startswith("GET /lcybuaa")]


def test_a_file_that_is_not_the_hubs_is_refused(mirror: Hub, tmp_path: Path) -> None:
    """The hash that the hub keeps of a large file decides."""
    mirror.hashes["model.safetensors"] = "f" * 64
    arguments = ("git-rsclip", str(tmp_path / "b"), "--from", mirror.url, "--accept-licence")
    done = export_from("http://127.0.0.1:9", tmp_path / "home", *arguments, command="fetch")
    assert done.returncode == 2
    assert "model.safetensors has SHA-256" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "b").exists()


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingError, match=r"overflight\[hub\]"):
        locate("overflight/tiny")


@pytest.mark.parametrize("source", ["absent", "/absent/place", "a/b/c", "../x"])
def test_what_is_neither_a_path_nor_an_id_is_refused(source: str) -> None:
    """Nothing is asked of the network for a path."""
    with pytest.raises(UsageError, match="no such directory"):
        locate(source)
    with pytest.raises(UsageError, match="no such directory"):
        locate_tokenizer(source)


def test_a_directory_or_file_is_used_where_it_lies(tmp_path: Path) -> None:
    """Its name is the model's; nothing is copied."""
    (tmp_path / "model").mkdir()
    (tmp_path / "RemoteCLIP-RN50.pt").touch()
    assert locate(str(tmp_path / "model")) == (tmp_path / "model", "model")
    assert locate(str(tmp_path / "RemoteCLIP-RN50.pt")) == (tmp_path / "RemoteCLIP-RN50.pt", "RemoteCLIP-RN50")
