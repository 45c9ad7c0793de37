"""Downloading a bundle and a bank: a made-up authority, broken transfers that resume, and servers that do wrong."""

from __future__ import annotations

import http.server
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overflight.runtime.bundle import Bundle, seal
from overflight.runtime.errors import BundleError, OverflightError, SignatureError, UsageError
from overflight.runtime.links.tls import NO_FILES, TlsFiles
from overflight.station.deploy import fetch
from overflight.station.deploy.deployments import Deployments
from overflight.station.deploy.fetch import Web
from overflight.station.deploy.running import Running

MakeBundle = Callable[..., Bundle]
NO_FLIGHT = Running(1, "")


@dataclass
class Server:
    """A static web server over a folder, with faults on request."""

    folder: Path
    url: str = ""
    break_after: int | None = None
    redirect: str | None = None
    endless: bool = False
    ranges: bool = True
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        given, token = handler.headers.get("Range"), handler.headers.get("Authorization")
        self.asked.append((handler.path, given, token))
        path = self.folder / handler.path.lstrip("/")
        if self.redirect is not None:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if not path.is_file():
            handler.send_error(404)
            return
        content = path.read_bytes()
        start = int(given.removeprefix("bytes=").rstrip("-")) if given and self.ranges else 0
        handler.send_response(206 if start else 200)
        if not self.endless:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        if self.endless:
            while True:
                handler.wfile.write(b"x" * 65536)
        part = content[start:]
        handler.wfile.write(part if self.break_after is None else part[: self.break_after])


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return what starts a server over a folder, with TLS where a context is given."""
    started: list[http.server.ThreadingHTTPServer] = []

    def start(folder: Path, context: ssl.SSLContext | None = None) -> Server:
        made = Server(folder)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                made.answer(self)

            def log_message(self, *_: object) -> None: ...

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request: Any, client_address: Any) -> None:
                if context is None:
                    return super().finish_request(request, client_address)
                with context.wrap_socket(request, server_side=True) as secure:
                    return super().finish_request(secure, client_address)

            def handle_error(self, *_: object) -> None: ...

        started.append(Listener(("127.0.0.1", 0), Handler))
        threading.Thread(target=started[-1].serve_forever, args=(0.02,), daemon=True).start()
        made.url = f"http{'' if context is None else 's'}://127.0.0.1:{started[-1].server_address[1]}"
        return made

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def fetch_bundle(web: Web, url: str, incoming: Path) -> Path:
    """Download a bundle into a home of its own."""
    return web.fetch_bundle(url, Deployments(incoming), lambda text: None)


PLAIN = Web(NO_FILES, trusted=True)


def test_a_bundle_is_downloaded_and_deployed(
    aircraft: Any, make_bundle: MakeBundle, make_bank: Any, serve: Any
) -> None:
    """From a static server; the second time nothing changes, and the large files are not asked for again."""
    first = make_bundle("first")
    server = serve(first.directory.parent)
    update = aircraft.update(running=NO_FLIGHT, web=PLAIN)
    assert update.take(f"{server.url}/first/", None).action == "deployed"
    assert Bundle.open(aircraft.home / "deployments/current/bundle").sha256 == first.sha256
    server.asked.clear()
    assert update.take(f"{server.url}/first", None).action == "unchanged"
    assert [path for path, _, _ in server.asked] == ["/first/manifest.json", "/first/manifest.json.minisig"]
    banks = serve(make_bank("scenes").parent)
    assert update.take(None, f"{banks.url}/scenes.safetensors").deployment.bank_name == "scenes"


def test_a_broken_download_resumes(make_bundle: MakeBundle, serve: Any, tmp_path: Path) -> None:
    """What came stays, the rest is asked for; without ranges it starts again; a wrong remainder is refused."""
    made = make_bundle("large")
    (made.directory / "weights.bin").write_bytes(os.urandom(3_000_000))
    made = seal(made.directory, made.manifest)
    server = serve(made.directory)
    for ranges in (True, False):
        server.break_after, server.ranges = 2_000_000, ranges
        incoming = tmp_path / f"incoming-{ranges}"
        with pytest.raises(OverflightError, match="it resumes"):
            fetch_bundle(PLAIN, server.url, incoming)
        part = incoming / "deployments" / "incoming" / made.sha256[:16] / "weights.bin.part"
        assert part.stat().st_size == 2_000_000
        server.break_after = None
        folder = fetch_bundle(PLAIN, server.url, incoming)
        assert ("/weights.bin", "bytes=2000000-", None) in server.asked
        Bundle.open(folder).verify()
    part = tmp_path / "third/deployments/incoming" / made.sha256[:16] / "weights.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    server.ranges = True
    with pytest.raises(BundleError, match="SHA-256 is"):
        fetch_bundle(PLAIN, server.url, tmp_path / "third")
    assert not part.exists()
    fetch_bundle(PLAIN, server.url, tmp_path / "third")


def test_a_file_that_is_not_the_manifests_is_refused(make_bundle: MakeBundle, serve: Any, tmp_path: Path) -> None:
    """Changed on the server, or missing there."""
    made = make_bundle("first")
    server = serve(made.directory)
    (made.directory / "image.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="upload the bundle again"):
        fetch_bundle(PLAIN, server.url, tmp_path / "incoming")
    (made.directory / "image.onnx").unlink()
    with pytest.raises(OverflightError, match=r"SHA-256|404"):
        fetch_bundle(PLAIN, server.url, tmp_path / "incoming")
    with pytest.raises(OverflightError, match=r"no manifest\.json there"):
        fetch_bundle(PLAIN, f"{server.url}/nowhere", tmp_path / "incoming")


def test_servers_that_never_end_are_bounded(
    make_bundle: MakeBundle, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest without end stops at its limit; a file without a length is refused; a slow one at its time."""
    made = make_bundle("first")
    server = serve(made.directory)
    server.endless = True
    with pytest.raises(OverflightError, match="more than 4194304 bytes"):
        fetch_bundle(PLAIN, server.url, tmp_path / "incoming")
    server.endless = False
    with pytest.raises(OverflightError, match="too slow; try again, it resumes"):
        fetch_bundle(Web(NO_FILES, trusted=True, within_s=0.0), server.url, tmp_path / "incoming")
    monkeypatch.setattr(fetch, "check_space", lambda *_: (_ for _ in ()).throw(OverflightError("1 MB are free")))
    with pytest.raises(OverflightError, match="1 MB are free"):
        fetch_bundle(PLAIN, server.url, tmp_path / "other")


def test_plain_http_needs_a_trusted_key_and_redirects_stay(make_bundle: MakeBundle, serve: Any, tmp_path: Path) -> None:
    """Without signatures only TLS says who sends; a token never goes to another host."""
    server = serve(make_bundle("first").directory)
    with pytest.raises(UsageError, match="expected https://"):
        fetch_bundle(Web(NO_FILES), server.url, tmp_path)
    for url in ("ftp://host/x/", "file:///etc/", "https:///x"):
        with pytest.raises(UsageError, match="expected https://"):
            fetch_bundle(PLAIN, url, tmp_path)
    other = serve(tmp_path)
    server.redirect = f"{other.url}/x"
    with pytest.raises(OverflightError, match="redirected to"):
        fetch_bundle(Web(NO_FILES, "secret", trusted=True), server.url, tmp_path)
    assert other.asked == []
    assert server.asked[-1][2] == "Bearer secret"
    server.redirect = f"{server.url}/loop"
    with pytest.raises(OverflightError, match="redirected to"):
        fetch_bundle(PLAIN, server.url, tmp_path)


def test_a_signature_is_asked_before_the_files(
    aircraft: Any, make_bundle: MakeBundle, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unsigned bundle costs the link two small answers; a signed one is deployed with its signature."""
    pytest.importorskip("cryptography")
    from overflight.runtime.signatures.secret_key import SecretKey
    from overflight.runtime.signatures.terms import Terms
    from overflight.runtime.signatures.trust import trust_key
    from overflight.runtime.signing import sign_path

    monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(tmp_path / "keys"))
    key = SecretKey.make()
    (tmp_path / "k.pub").write_text(key.public.encode())
    trust_key(tmp_path / "k.pub")
    made = make_bundle("first")
    server = serve(made.directory)
    update = aircraft.update(running=NO_FLIGHT, web=PLAIN)
    with pytest.raises(SignatureError, match="not signed"):
        update.take(server.url, None)
    assert [path for path, _, _ in server.asked] == ["/manifest.json", "/manifest.json.minisig"]
    sign_path(made.directory, key, Terms.make())
    update.take(server.url, None)
    assert (aircraft.home / "deployments/current/bundle/manifest.json.minisig").exists()
    assert Deployments(aircraft.home).all()[0].accepted["bundle"].sha256 == made.sha256


@pytest.mark.parametrize("fault", [None, "name", "authority"])
def test_tls(make_bundle: MakeBundle, serve: Any, tmp_path: Path, fault: str | None) -> None:
    """Our own authority is believed; a certificate of another host or authority is not."""
    pytest.importorskip("cryptography")
    ours = _certificate(tmp_path, "ours", "other.example" if fault == "name" else "127.0.0.1")
    theirs = _certificate(tmp_path, "theirs", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ours, tmp_path / "ours.key")
    server = serve(make_bundle("first").directory, context)
    web = Web(TlsFiles(str(theirs if fault == "authority" else ours)))
    if fault is None:
        Bundle.open(fetch_bundle(web, server.url, tmp_path / "incoming")).verify()
        return
    with pytest.raises(OverflightError, match="certificate"):
        fetch_bundle(web, server.url, tmp_path / "incoming")


def _certificate(folder: Path, name: str, host: str) -> Path:
    """Write a certificate that signs itself, and its key."""
    import subprocess

    kind = "IP" if host[0].isdigit() else "DNS"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{host}",
         "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / f"{name}.pem"
