"""Checkpoints from the hub: only what is needed, resumed where it stopped, one line where there is no network.

Covers: export/commands/fetch.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from overflight.export.fetch import locate, locate_tokenizer
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import MissingError

Tiny = Callable[..., Path]
pytest.importorskip("huggingface_hub")
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub on loopback that serves one directory as overflight/tiny, and remembers what was asked."""

    def __init__(self, directory: Path) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.asked.append(f"{self.command} {path}")
                if path.startswith("/api/models/overflight/tiny/tree/"):
                    entries = [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                        for file in sorted(directory.iterdir())
                    ]
                    content = json.dumps(entries).encode()
                elif path.startswith("/api/models/overflight/tiny"):
                    names = [{"rfilename": file.name} for file in sorted(directory.iterdir())]
                    content = json.dumps({"id": "overflight/tiny", "sha": _COMMIT, "siblings": names}).encode()
                elif path.startswith("/overflight/tiny/resolve/"):
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
                if body:
                    self.wfile.write(content[start:])

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(tiny: Tiny) -> Iterator[Hub]:
    """A hub that holds a sharded tiny SigLIP, and files that nobody needs."""
    directory = tiny("siglip", shards=2)
    (directory / "pytorch_model.bin").write_bytes(b"a pickle")
    (directory / "README.md").write_text("a card")
    made = Hub(directory)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def export_from(endpoint: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with a hub of its own; torch is kept out to keep it quick."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from overflight.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "export", *arguments],
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


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingError, match=r"overflight\[hub\]"):
        locate("overflight/tiny")


@pytest.mark.parametrize("source", ["absent", "/absent/place", "a/b/c", "../x"])
def test_what_is_neither_a_path_nor_an_id_is_refused(source: str) -> None:
    """Nothing is asked of the network for a path."""
    with pytest.raises(MissingError, match="no such directory"):
        locate(source)
    with pytest.raises(MissingError, match="no such directory"):
        locate_tokenizer(source)


def test_a_directory_or_file_is_used_where_it_lies(tmp_path: Path) -> None:
    """Its name is the model's; nothing is copied."""
    (tmp_path / "model").mkdir()
    (tmp_path / "RemoteCLIP-RN50.pt").touch()
    assert locate(str(tmp_path / "model")) == (tmp_path / "model", "model")
    assert locate(str(tmp_path / "RemoteCLIP-RN50.pt")) == (tmp_path / "RemoteCLIP-RN50.pt", "RemoteCLIP-RN50")
