"""TLS of links against real servers on loopback: a made-up authority, wrong names, expired and missing certificates."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from overflight.runtime.errors import UsageError
from overflight.runtime.links import Links
from overflight.runtime.links.address import LinkAddress, open_link
from overflight.runtime.links.message import LinkDown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

x509 = pytest.importorskip("cryptography.x509", reason="made-up certificates need cryptography")
NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
KINDS = ("mqtts", "https", "cot+tls")


@dataclass(frozen=True)
class Authority:
    """A made-up certificate authority that writes PEM files."""

    folder: Path
    name: str
    key: Any
    certificate: Any

    @classmethod
    def make(cls, folder: Path, name: str) -> Authority:
        key = _new_key()
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, subject, key.public_key(), NOW - 2 * DAY, NOW + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, _hash())
        )
        authority = cls(folder, name, key, certificate)
        (folder / f"{name}.pem").write_bytes(_pem(certificate))
        return authority

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(self, name: str, host: str = "127.0.0.1", *, expired: bool = False) -> tuple[Path, Path]:
        """Write a certificate and its key for a host."""
        key = _new_key()
        until = NOW - DAY if expired else NOW + DAY
        try:
            alternative: Any = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, self.certificate.subject, key.public_key(), NOW - 2 * DAY, until)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(self.key, _hash())
        )
        files = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        files[0].write_bytes(_pem(certificate))
        from cryptography.hazmat.primitives import serialization as how

        files[1].write_bytes(key.private_bytes(how.Encoding.PEM, how.PrivateFormat.PKCS8, how.NoEncryption()))
        return files


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _hash() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    raw: bytes = certificate.public_bytes(Encoding.PEM)
    return raw


def _builder(subject: Any, issuer: Any, key: Any, begin: datetime.datetime, end: datetime.datetime) -> Any:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return made.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "authority")


@pytest.fixture
def serve(authority: Authority, tmp_path: Path) -> Iterator[Callable[[str, tuple[Path, Path]], int]]:
    """Start a real server of a kind that demands a client certificate of the authority; returns its port."""
    closing: list[Callable[[], object]] = []

    def start(kind: str, files: tuple[Path, Path]) -> int:
        if kind == "mqtts":
            port, stop = _mosquitto(authority, files, tmp_path)
        else:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.path))
            context.load_cert_chain(*files)
            context.verify_mode = ssl.CERT_REQUIRED
            port, stop = _https(context) if kind == "https" else _tak(context)
        closing.append(stop)
        return port

    yield start
    for close in closing:
        close()


def _mosquitto(authority: Authority, files: tuple[Path, Path], folder: Path) -> tuple[int, Callable[[], object]]:
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    pytest.importorskip("paho", reason="paho-mqtt is not installed")
    if not Path(program).exists():
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\ncafile {authority.path}\n"
        f"certfile {files[0]}\nkeyfile {files[1]}\nrequire_certificate true\n"
    )
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        threading.Event().wait(0.05)

    def stop() -> None:
        process.kill()
        process.wait()

    return port, stop


def _https(context: ssl.SSLContext) -> tuple[int, Callable[[], object]]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            with context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return int(server.server_address[1]), stop


def _tak(context: ssl.SSLContext) -> tuple[int, Callable[[], object]]:
    ear = socket.create_server(("127.0.0.1", 0))

    def hear() -> None:
        while True:
            try:
                plain, _ = ear.accept()
            except OSError:
                return
            try:
                connection = context.wrap_socket(plain, server_side=True)
            except OSError:
                continue
            threading.Thread(target=lambda one=connection: _drain(one), daemon=True).start()

    threading.Thread(target=hear, daemon=True).start()
    return int(ear.getsockname()[1]), ear.close


def _drain(connection: socket.socket) -> None:
    with connection:
        while connection.recv(65536):
            continue


def address(kind: str, port: int, **files: Path) -> str:
    options = "&".join(f"{name}={path}" for name, path in files.items())
    return f"{kind}://127.0.0.1:{port}/hook#{options}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_up_authority_and_a_client_certificate(
    kind: str, authority: Authority, serve: Any, step: Any, wait: Any, tmp_path: Path
) -> None:
    """With the authority's file and our own certificate, an event is delivered to a server that demands both."""
    port = serve(kind, authority.issue("server"))
    ours = authority.issue("aircraft")
    links = Links.open([address(kind, port, ca=authority.path, cert=ours[0], key=ours[1])], tmp_path / "o.sqlite")
    links.publish(step(1))
    assert wait(lambda: links.status()[0].sent == 1), links.status()
    (status,) = links.close(12.0)
    assert (status.waiting, status.trouble) == (0, None)
    assert str(authority.path) not in status.name


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("wrong name", "IP address mismatch|Hostname mismatch|not valid for"),
        ("expired", "expired"),
        ("another authority", "unable to get local issuer|self-signed|unable to verify"),
        ("system authorities", "unable to get local issuer|self-signed|unable to verify"),
    ],
)
def test_a_wrong_server_is_not_believed(
    kind: str, fault: str, why: str, authority: Authority, serve: Any, tmp_path: Path
) -> None:
    """A wrong name, an expired certificate and an unknown authority end the connection, with the reason."""
    host = "tak.example" if fault == "wrong name" else "127.0.0.1"
    port = serve(kind, authority.issue("server", host, expired=fault == "expired"))
    ours = authority.issue("aircraft")
    files = {"ca": authority.path, "cert": ours[0], "key": ours[1]}
    if fault == "another authority":
        files["ca"] = Authority.make(tmp_path, "stranger").path
    elif fault == "system authorities":
        del files["ca"]
    link, _ = open_link(LinkAddress.parse(address(kind, port, **files)), None, None)
    with pytest.raises(LinkDown, match=why):
        link.open()
    link.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["no certificate", "expired", "another authority"])
def test_a_wrong_client_delivers_nothing(
    kind: str, fault: str, authority: Authority, serve: Any, step: Any, wait: Any, tmp_path: Path
) -> None:
    """A server that does not believe us takes nothing; the event waits and the trouble is said."""
    port = serve(kind, authority.issue("server"))
    issuer = Authority.make(tmp_path, "stranger") if fault == "another authority" else authority
    ours = issuer.issue("aircraft", expired=fault == "expired")
    files = {"ca": authority.path} | ({} if fault == "no certificate" else {"cert": ours[0], "key": ours[1]})
    links = Links.open([address(kind, port, **files)], tmp_path / "o.sqlite")
    links.publish(step(1))
    assert wait(lambda: links.status()[0].trouble is not None, 20.0)
    (status,) = links.close(0.5)
    assert status.waiting == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mqtt://h/p#ca={good}", "needs TLS"),
        ("https://h/#ca=/nowhere.pem", "No such file"),
        ("https://h/#ca={junk}", "not a certificate authority in PEM form"),
        ("https://h/#cert={good}", "not a certificate with its key"),
        ("https://h/#key={good}", "without its certificate"),
        ("cot+tls://h:8089#cert={good}&key={junk}", "not a certificate with its key"),
        ("cot+tls://h", "no port"),
        ("https://h/#accept=banks", "on an MQTT link"),
        ("mqtt://h/p#accept=all", "expected accept=banks"),
    ],
)
def test_mistakes_are_found_before_the_flight(text: str, why: str, authority: Authority, tmp_path: Path) -> None:
    """Exit code 2 with the file and the reason."""
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(UsageError, match=why):
        LinkAddress.parse(text.format(good=authority.path, junk=tmp_path / "junk.pem"))


def test_an_encrypted_key_is_refused_and_asks_nobody(authority: Authority, tmp_path: Path) -> None:
    """OpenSSL would ask for the password on the terminal of an aircraft."""
    from cryptography.hazmat.primitives import serialization as how

    certificate, key = authority.issue("aircraft")
    secret = how.load_pem_private_key(key.read_bytes(), None)
    locked = how.BestAvailableEncryption(b"secret")
    key.write_bytes(secret.private_bytes(how.Encoding.PEM, how.PrivateFormat.PKCS8, locked))
    with pytest.raises(UsageError, match="unencrypted"):
        LinkAddress.parse(f"https://h/#cert={certificate}&key={key}")


def test_banks_are_taken_only_when_asked_for(broker: Any, wait: Any, tmp_path: Path) -> None:
    """Without accept=banks a retained bank/set is not even subscribed to."""
    broker.publish("of/bank/set", b"poison")
    taken: list[bytes] = []

    def on_bank(raw: bytes) -> str:
        taken.append(raw)
        return "hash"

    links = Links.open([broker.uri], tmp_path / "o.sqlite", on_bank=on_bank)
    assert wait(lambda: broker.topic("of/available") == [b"online"])
    broker.publish("of/bank/set", b"poison")
    links.close()
    assert (taken, broker.topic("of/bank/state")) == ([], [])
