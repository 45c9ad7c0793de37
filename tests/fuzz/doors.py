"""Every parser and every door that takes bytes from outside, as a function of bytes, with inputs to begin from."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from overflight.runtime.errors import OverflightError


class Door(NamedTuple):
    """A parser: ``take`` may raise OverflightError or one of ``allowed``; ``seeds`` are inputs that it accepts."""

    take: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[Exception], ...] = (OverflightError,)


def _track(suffix: str) -> Callable[[bytes, Path], object]:
    def take(data: bytes, folder: Path) -> object:
        from overflight.runtime.pose.source import read_track

        path = folder / f"input{suffix}"
        path.write_bytes(data)
        track = read_track(path)
        return [track.at(t_ns) for t_ns in (*track.times_ns[:3], 0, 1 << 40)]

    return take


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def take(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return take


def _text(read: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    return lambda data, folder: read(data.decode("utf-8", "surrogateescape" if len(data) % 7 == 0 else "replace"))


SRT = (
    b'1\n00:00:00,000 --> 00:00:00,033\n<font size="28">SrtCnt : 1, DiffTime : 33ms\n2023-01-01 10:00:00.000\n'
    b"[iso : 100] [latitude: 47.1] [longitude: 8.2] [rel_alt: 10.000 abs_alt: 400.000] "
    b"[gb_yaw: 1.0 gb_pitch: -90.0 gb_roll: 0.0]</font>\n\n"
    b"2\n00:00:01,000 --> 00:00:01,033\nGPS(8.5,47.2,16) BAROMETER:12.3\n"
    b"F.PRY (1.0\xc2\xb0, 2.0\xc2\xb0, 3.0\xc2\xb0)\n\n"
)
GPX = (
    b'<?xml version="1.0"?><gpx xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg><trkpt lat="47.1" lon="8.2">'
    b"<ele>400</ele><time>2026-05-01T10:00:00Z</time></trkpt></trkseg></trk></gpx>"
)
CSV = b"time,lat,lon,alt,yaw,pitch\n2026-05-01T10:00:00Z,47.1,8.2,400,1,2\n2026-05-01T10:00:01+02:00,47.2,8.3,,,\n"


def _box(key: bytes, *inner: bytes) -> bytes:
    body = b"".join(inner)
    return struct.pack(">I4s", 8 + len(body), key) + body


def _movie() -> bytes:
    """Return a GoPro video's metadata track with two GPS5 rows."""

    def item(key: bytes, kind: bytes, size: int, rows: bytes) -> bytes:
        return struct.pack(">4scBH", key, kind or b"\0", size, len(rows) // size) + rows + bytes(-len(rows) % 4)

    rows = struct.pack(">10i", 471000000, 82000000, 400000, 0, 0, 471000100, 82000100, 400000, 0, 0)
    scale = struct.pack(">5i", 10_000_000, 10_000_000, 1000, 1000, 100)
    stream = (
        item(b"GPSF", b"L", 4, struct.pack(">I", 3)) + item(b"SCAL", b"l", 4, scale) + item(b"GPS5", b"l", 20, rows)
    )
    payload = item(b"DEVC", b"\0", 1, item(b"STRM", b"\0", 1, stream))

    def whole(place: int) -> bytes:
        table = _box(
            b"stbl",
            _box(b"stsd", bytes(8) + struct.pack(">I4s", 16, b"gpmd") + bytes(8)),
            _box(b"stts", struct.pack(">IIII", 0, 1, 1, 1000)),
            _box(b"stsz", struct.pack(">IIII", 0, 0, 1, len(payload))),
            _box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1)),
            _box(b"stco", struct.pack(">III", 0, 1, place)),
        )
        media = _box(b"mdia", _box(b"mdhd", struct.pack(">IIIII", 0, 0, 0, 1000, 0)), _box(b"minf", table))
        return _box(b"moov", _box(b"trak", media))

    return whole(len(whole(0))) + payload


def _tlog() -> bytes:
    from pymavlink.dialects.v20 import ardupilotmega as dialect

    mav = dialect.MAVLink(None, srcSystem=1, srcComponent=1)
    lines = b""
    for number in range(4):
        for message in (
            dialect.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3),
            dialect.MAVLink_attitude_message(1000 + number, 0.1, 0.2, 0.3, 0, 0, 0),
            dialect.MAVLink_global_position_int_message(1000 + number, 471000000, 82000000, 400, 50, 0, 0, 0, 900),
        ):
            lines += struct.pack(">Q", 1_780_000_000_000_000 + number) + message.pack(mav)
    return lines


@cache
def _bank() -> bytes:
    import msgspec

    from overflight.runtime.bank import BankHeader, Label, LabelBank

    header = BankHeader(
        schema=1, name="b", model="m", tower="c" * 64, activation="sigmoid", logit_scale=2.0, logit_bias=-5.0,
        labels=(Label("a", ("a",)), Label("b", ("b",), group="g"), Label("n", ("n",), background=True)),
        exclusive=("g",),
    )  # fmt: skip
    bank = LabelBank.make(header, np.eye(3, dtype=np.float32))
    folder = Path("/tmp") / f"overflight-fuzz-{msgspec.__version__}"
    folder.mkdir(exist_ok=True)
    bank.save(folder / "bank.safetensors")
    return (folder / "bank.safetensors").read_bytes()


def _read_bank(data: bytes, folder: Path) -> object:
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.flight.banks import prove

    bank = LabelBank.decode(data, source="input")
    prove(bank)
    return bank


def _jpeg() -> bytes:
    import cv2

    return bytes(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1])


def _tagged_jpeg() -> bytes:
    order = struct.pack("<2sHI", b"II", 42, 8)
    gps_at, data_at = 8 + 2 + 12 + 4, 8 + 2 + 12 + 4 + 2 + 4 * 12 + 4
    entries = struct.pack("<HHHII", 1, 0x8825, 4, 1, gps_at) + bytes(4)
    gps = struct.pack("<H", 4)
    gps += struct.pack("<HHI4s", 1, 2, 2, b"N\0\0\0") + struct.pack("<HHII", 2, 5, 3, data_at)
    gps += struct.pack("<HHI4s", 3, 2, 2, b"E\0\0\0") + struct.pack("<HHII", 4, 5, 3, data_at) + bytes(4)
    tiff = order + entries + gps + struct.pack("<6I", 47, 1, 6, 1, 0, 1)
    exif = b"Exif\0\0" + tiff
    xmp = b'<x:xmpmeta><rdf:Description drone-dji:GpsLatitude="47.1" drone-dji:GpsLongitude="8.2"/></x:xmpmeta>'
    segments = (
        b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    )
    return b"\xff\xd8" + segments + _jpeg()[2:]


def _tiff() -> bytes:
    import io

    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64, 3), np.uint8), tile=(16, 16), photometric="rgb")
    return file.getvalue()


def _read_mosaic(path: Path) -> object:
    from overflight.runtime.sources.mosaic import Mosaic, is_mosaic

    if not is_mosaic(path, 32):
        return None
    mosaic = Mosaic(path, 32)
    try:
        return next(iter(mosaic.frames()), None)
    finally:
        mosaic.close()


def _read_image(path: Path) -> object:
    from overflight.runtime.sources.image import read_image

    return read_image(path)


def _read_still(path: Path) -> object:
    from overflight.runtime.pose.stills import read_still

    return read_still(path)


def _manifest(data: bytes, folder: Path) -> object:
    from overflight.runtime.bundle import Bundle

    (folder / "manifest.json").write_bytes(data)
    return Bundle.open(folder)


def _manifest_seed() -> bytes:
    from overflight.runtime.bundle import default_bundle

    return (default_bundle() / "manifest.json").read_bytes()


def _labels(data: bytes, folder: Path) -> object:
    from overflight.export.label_file import parse_text, parse_toml
    from overflight.export.prompts import DEFAULT, read_templates

    text = data.decode("utf-8", "replace")
    parse = parse_toml if len(data) % 2 else parse_text
    return parse(text, read_templates(DEFAULT), "input", "input")


def _outbox(data: bytes, folder: Path) -> object:
    """A row of the outbox: what it holds must be a message, or unreadable."""
    import sqlite3

    from overflight.runtime.event import Event
    from overflight.runtime.links.outbox import Outbox, Unreadable

    path = folder / "outbox.sqlite"
    if not path.exists():
        box = Outbox(path)
        box.put(Event("f-1", "begin", "x", 1, 1, 1, 0.5), b"", ["x"])
        box.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE messages SET record = ?", (data,))
    connection.commit()
    connection.close()
    box = Outbox(path)
    try:
        return box.next("x")
    except Unreadable:
        return None
    finally:
        box.close()


def _outbox_file(data: bytes, folder: Path) -> object:
    from overflight.runtime.links.outbox import Outbox
    from overflight.runtime.links.outbox_repair import move_aside_if_damaged

    path = folder / "file.sqlite"
    for left in folder.glob("file.sqlite*"):
        left.unlink()
    path.write_bytes(data)
    move_aside_if_damaged(path)
    box = Outbox(path)
    try:
        return box.waiting("x")
    finally:
        box.close()


def _sqlite_seed() -> bytes:
    import tempfile

    from overflight.runtime.event import Event
    from overflight.runtime.links.outbox import Outbox

    with tempfile.TemporaryDirectory() as folder:
        box = Outbox(Path(folder) / "o.sqlite")
        box.put(Event("f-1", "begin", "x", 1, 1, 1, 0.5), b"", ["x"])
        box.close()
        return (Path(folder) / "o.sqlite").read_bytes()


def _journal(data: bytes, folder: Path) -> object:
    from overflight.runtime.flight.directory import export_lines

    for left in folder.glob("journal.sqlite*"):
        left.unlink()
    (folder / "journal.sqlite").write_bytes(data)
    return export_lines(folder)


def _journal_seed() -> bytes:
    import tempfile

    from overflight.runtime.flight.journal import Journal
    from overflight.runtime.records import Costs, Observation

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.sqlite")
        journal.append(Observation(1, 1, 1, "red", (), Costs(1, 2, 3), "b", "e"), np.full(4, 0.5, np.float32))
        journal.close()
        return (Path(folder) / "journal.sqlite").read_bytes()


def _flight_record(data: bytes, folder: Path) -> object:
    from overflight.runtime.flight.directory import read_record

    (folder / "flight.json").write_bytes(data)
    return read_record(folder)


def _link(text: str) -> object:
    from overflight.runtime.links.address import LinkAddress

    return LinkAddress.parse(text)


def _redact(text: str) -> object:
    from overflight.runtime.redact import quote_credentials, redact, redact_text

    return redact(text), redact_text(text), quote_credentials(text)


def _source(text: str) -> object:
    from overflight.runtime.sources import open_source

    if "\0" in text or not text.isprintable() or text.startswith(("/", "~", ".")):
        return None
    open_source(f"test://?{text}").close()
    return None


def _camera(text: str) -> object:
    from overflight.runtime.filters.pace import Pace
    from overflight.runtime.pose.camera_model import CameraModel
    from overflight.runtime.tiles import Tiling

    for parse in (CameraModel.parse, Tiling.parse, Pace.parse_duty):
        try:
            parse(text)
        except OverflightError:
            continue
    return None


def _minisign(text: str) -> object:
    from overflight.runtime.signatures.minisign import PublicKey, Signature
    from overflight.runtime.signatures.terms import Terms

    for parse in (PublicKey.parse, Signature.parse, Terms.parse):
        try:
            parse(text, source="input")
        except OverflightError:
            continue
    return None


def _received(data: bytes, folder: Path) -> object:
    from overflight.runtime.bank import receive_bank

    return receive_bank(data, source="input")


def _tegrastats(text: str) -> object:
    from overflight.jetson.tegrastats import parse_log

    return list(parse_log(text))


class _Health:
    """A health server's handler on a socket pair."""

    def __init__(self) -> None:
        from overflight.runtime.flight.gauges import Gauges
        from overflight.runtime.worker import Faults

        self.gauges = Gauges()
        self.token: Any = self
        self.path = "token"
        self.faults = Faults("fuzz")
        self.uploading = threading.Lock()

    def allows(self, authorization: str | None) -> bool:
        return authorization is not None

    def describe_bank(self) -> dict[str, str]:
        return {}

    def take_bank(self, raw: bytes) -> str:
        from overflight.runtime.bank import LabelBank

        return LabelBank.decode(raw, source="input").sha256


def _health(data: bytes, folder: Path) -> object:
    from overflight.runtime.flight.health import _Handler

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        ours.sendall(data[:60_000])
        ours.shutdown(socket.SHUT_WR)
        server = _Health()
        _Handler(theirs, ("127.0.0.1", 1), server)  # type: ignore[arg-type]
        if server.faults.counts:
            raise AssertionError(server.faults.trouble)
    return None


def _webhook(data: bytes, folder: Path) -> object:
    """What a web server answers."""
    import http.client

    from overflight.runtime.deadline import DeadlineSocket
    from overflight.runtime.event import Event
    from overflight.runtime.links.message import LinkDown, Message, Refused
    from overflight.runtime.links.webhook import WebhookLink

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        link = WebhookLink("http://127.0.0.1:9/x")
        link._connection = http.client.HTTPConnection("127.0.0.1", 9)
        link._connection.sock = link._socket = DeadlineSocket(ours, 5.0)
        try:
            link.send(Message(1, "event", Event("f-1", "begin", "x", 1, 1, 1, 0.5)), b"{}")
        except (LinkDown, Refused):
            return None
        finally:
            link.close()
    return None


def _klv(data: bytes, folder: Path) -> object:
    from overflight.runtime.pose.klv import checksum, read_klv

    path = folder / "input.klv"
    path.write_bytes(data)
    if len(data) > 20:  # most mutated sets only fail at their checksum, so every other one gets the right one
        path.write_bytes(data if len(data) % 2 else data[:-2] + checksum(data[:-2]).to_bytes(2, "big"))
    return read_klv(path)


def _klv_seed() -> bytes:
    from overflight.runtime.pose.klv import UNIVERSAL_KEY, checksum

    items = [(2, bytes(8)), (13, b"\x40\0\0\0"), (14, b"\x10\0\0\0"), (15, b"\x20\0"), (16, b"\x40\0"), (25, b"\x10\0")]
    body = b"".join(bytes([key, len(value)]) + value for key, value in items) + b"\1\2"
    whole = UNIVERSAL_KEY + bytes([len(body) + 2]) + body
    return whole + checksum(whole).to_bytes(2, "big")


def _rtsp(data: bytes, folder: Path) -> object:
    """What an RTSP server sends: a description, the replies, then packets whose pictures are put together."""
    from overflight.runtime.sources.rtsp.pictures import Assembler
    from overflight.runtime.sources.rtsp.rtp import ReorderBuffer, RtpPacket, SenderReport
    from overflight.runtime.sources.rtsp.session import RtspSession

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        session = RtspSession.__new__(RtspSession)
        connect = RtspSession._connect

        def connected(self: Any, address: str) -> None:
            self._socket, self._host, self._url, self._buffer = ours, "camera", "rtsp://camera/x", b""
            self._user, self._password = "user", "password"

        RtspSession._connect = connected  # type: ignore[method-assign]
        try:
            session.__init__("rtsp://camera/x", "camera", open_s=1.0, read_s=1.0)  # type: ignore[misc]
            media = session.describe()
            session.play(media, "tcp")
            reorder, assembler = ReorderBuffer(), Assembler("hevc" if len(data) % 2 else "h264")
            for channel, raw, arrived_ns in session.packets():
                if channel == "rtcp":
                    SenderReport.parse(raw)
                elif (packet := RtpPacket.parse(raw, arrived_ns)) is not None:
                    for one in reorder.put(packet):
                        list(assembler.put(one))
        finally:
            RtspSession._connect = connect  # type: ignore[method-assign]
    return None


def _rtsp_seed() -> bytes:
    sdp = (
        b"v=0\r\ns=x\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        b"a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IAHpY1QKALdA==,aM48gA==\r\na=control:track1\r\n"
    )
    head = b"RTSP/1.0 200 OK\r\nCSeq: %d\r\n"
    described = head % 1 + b"Content-Base: rtsp://camera/x/\r\nContent-Length: %d\r\n\r\n" % len(sdp) + sdp
    setup = head % 2 + b"Session: abc;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
    playing = head % 3 + b"Session: abc\r\n\r\n"
    units = (b"\x67\x42\0\x1e", b"\x78\0\2\x68\xce\0\2\x65\x88", b"\x7c\x85\1\2\3", b"\x7c\x45\4\5\6")
    packets = b""
    for number, unit in enumerate(units):
        raw = struct.pack(">BBHII", 0x80, 0xE0, number, 3000 * number, 7) + unit
        packets += b"$\0" + struct.pack(">H", len(raw)) + raw
    report = struct.pack(">BBHIIIIII", 0x80, 200, 6, 7, 3_900_000_000, 0, 3000, 1, 1)
    return described + setup + playing + packets + b"$\1" + struct.pack(">H", len(report)) + report


def _terrain(path: Path) -> object:
    from overflight.runtime.pose.terrain import Terrain

    terrain = Terrain.open(str(path))
    try:
        return terrain.height_m(47.0, 8.0)
    finally:
        terrain.close()


def _terrain_seed() -> bytes:
    import io

    import tifffile

    file = io.BytesIO()
    tags = [
        (33550, 12, 3, (0.001, 0.001, 0.0), False),
        (33922, 12, 6, (0.0, 0.0, 0.0, 7.95, 47.05, 0.0), False),
        (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326), False),
    ]
    tifffile.imwrite(file, np.full((100, 100), 500, np.int16), tile=(16, 16), extratags=tags)
    return file.getvalue()


def _config(data: bytes, folder: Path) -> object:
    import click

    from overflight.runtime.commands.run import command
    from overflight.runtime.flight.config import read_config

    path = folder / "flight.toml"
    path.write_bytes(data)
    return read_config(path, command, click.Context(command))


def _recording(path: Path) -> object:
    from overflight.runtime.sources.recording import VideoFile

    video = VideoFile(path)
    try:
        return sum(1 for _ in video.frames())
    finally:
        video.close()


@cache
def _recordings() -> list[bytes]:
    import io

    import av

    made = []
    for container, codec in (("mp4", "libx264"), ("mpegts", "libx264"), ("matroska", "libx265"), ("avi", "mjpeg")):
        file = io.BytesIO()
        with av.open(file, "w", format=container) as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(6):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
        made.append(file.getvalue())
    return made


def _tiles(suffix: str) -> Callable[[bytes, Path], object]:
    """A file of map tiles that the page shows."""

    def take(data: bytes, folder: Path) -> object:
        from overflight.station.serve import tile_files

        path = folder / f"map{suffix}"
        path.write_bytes(data)
        tile_files.describe_tiles(path)
        read = tile_files._mbtile if suffix == ".mbtiles" else tile_files._pmtile
        return [read(path, z, x, y) for z, x, y in ((0, 0, 0), (1, 1, 0))]

    return take


def _mbtiles_seed() -> bytes:
    import sqlite3
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mbtiles"
        connection = sqlite3.connect(path)
        connection.executescript(
            "CREATE TABLE metadata (name TEXT, value TEXT);"
            "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB);"
            "INSERT INTO metadata VALUES ('format', 'png'), ('bounds', '8,47,9,48');"
            "INSERT INTO tiles VALUES (0, 0, 0, x'89504e47');"
        )
        connection.close()
        return path.read_bytes()


def _pmtiles_seed() -> bytes:
    import io

    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    file = io.BytesIO()
    writer = Writer(file)
    for z, x, y in ((0, 0, 0), (1, 1, 0)):
        writer.write_tile(zxy_to_tileid(z, x, y), b"\x89PNG" + bytes(8))
    edges = {"min_lon_e7": 0, "min_lat_e7": 0, "max_lon_e7": 1, "max_lat_e7": 1}
    writer.finalize({"tile_type": TileType.PNG, "tile_compression": Compression.NONE, "min_zoom": 0, "max_zoom": 1,
                     "center_zoom": 0, "center_lon_e7": 0, "center_lat_e7": 0, **edges}, {})  # fmt: skip
    return file.getvalue()


def _regions(path: Path) -> object:
    from overflight.station.regions import _cut, read_boxes

    pixels = np.zeros((64, 64, 3), np.uint8)
    return [_cut(pixels, box) for box in read_boxes(path, Path("one.jpg")).annotations]


def _url_list(path: Path) -> object:
    from overflight.station.bulk.urls import is_url, read_list

    return [is_url(where) for where in read_list(path)]


def _review_zip(data: bytes, folder: Path) -> object:
    import shutil

    from overflight.station.review.store import _reviews
    from overflight.station.serve.endpoint import RefusedError
    from overflight.station.serve.reviewing import _unpack

    place = folder / "reviews"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        _unpack(data, "one.jsonl", place)
    except RefusedError:
        return None
    return list(_reviews(place))


def _review_seeds() -> list[bytes]:
    import io
    import zipfile

    line = b'{"flight":"f","frame":1,"label":"red","state":"confirmed","reviewer":"one","utc_ns":1}\n'
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one.jsonl", line)
    return [line, packed.getvalue()]


def _bulk_store(data: bytes, folder: Path) -> object:
    from overflight.station.bulk.store import BulkStore

    store = BulkStore(folder / "store")
    (folder / "store" / "manifests").mkdir(parents=True, exist_ok=True)
    for name in ("bulk.json", "shards.jsonl", "manifests/000000.json"):
        (store.directory / name).write_bytes(data)
    for read in (store.refused, store.settings, lambda: list(store.shards()), lambda: store.record(0)):
        try:
            read()
        except OverflightError:
            continue
    return None


def _npz_seed() -> bytes:
    import io

    file = io.BytesIO()
    np.savez_compressed(file, frames=np.zeros((2, 4, 4, 3), np.uint8), frame_embeddings=np.eye(2, dtype=np.float32))
    return file.getvalue()


def _npz(data: bytes, folder: Path) -> object:
    from overflight.runtime.zip_input import read_arrays

    return read_arrays(data, ("frames", "frame_embeddings"), 1 << 20)


def _rows_settings() -> Any:
    from overflight.station.bulk.records import Settings

    return Settings(1, "", "", "t", "m", 4, 32, "cpu", "fp32", "e", 1, 64)


def _rows_seed() -> bytes:
    """A shard of three rows, one with a place."""
    import io

    from overflight.station.bulk.records import Item
    from overflight.station.bulk.rows import Rows, Where, pyarrow, table_of

    rows = Rows()
    for name, place in (("a.jpg", None), ("b.jpg", Where(47.0, 8.0)), ("c.tif", Where(1, 2, ((0, 0), (1, 0), (1, 1))))):
        rows.append(Item("still", "in", name, f"/in/{name}"), "0" * 64, name=name, place=place)
        rows.vectors.append(np.eye(4, dtype=np.float32)[0])
    file = io.BytesIO()
    pyarrow().parquet.write_table(table_of(rows, _rows_settings()), file, compression="zstd")
    return file.getvalue()


def _bulk_rows(path: Path) -> object:
    """A shard's Parquet file whose manifest states its hash, as an attacker would."""
    from overflight.runtime.bundle import hash_file
    from overflight.station.bulk.read_rows import read_rows
    from overflight.station.bulk.records import Costs, ShardRecord
    from overflight.station.bulk.rows import corners_of

    costs = Costs(0, 0, 0, 0, 0, 0, 0)
    record = ShardRecord(1, 0, "", 3, path.stat().st_size, hash_file(path), 0, (), (), costs, "h")
    return [corners_of(row["geometry"]) for rows, _ in read_rows(path, record, _rows_settings()) for row in rows]


_COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 30, 40.5]}]}
_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 422 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
]
_REQUESTS = [
    b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\n\r\n",
    b"POST /bank HTTP/1.1\r\nAuthorization: Bearer x\r\nContent-Length: 5\r\n\r\nhello",
]
_SIGNED = b"untrusted comment: x\n" + b"R" * 100 + b"\ntrusted comment: counter:1\n" + b"R" * 88 + b"\n"
_RECORD = {"schema": 1, "source": "x", "host": "h", "versions": {}, "model": "m", "bundle": "b", "engine": "e"}

DOORS: dict[str, Door] = {
    "srt": Door(_track(".srt"), lambda: [SRT]),
    "csv": Door(_track(".csv"), lambda: [CSV, b"t_ms,lat,lon\n0,47,8\n33,47,8\n"]),
    "gpx": Door(_track(".gpx"), lambda: [GPX]),
    "mp4": Door(_track(".mp4"), lambda: [_movie()]),
    "tlog": Door(_track(".tlog"), lambda: [_tlog()]),
    "still": Door(_file("input.jpg", _read_still), lambda: [_tagged_jpeg(), _tiff()]),
    "image": Door(_file("input.jpg", _read_image), lambda: [_jpeg()]),
    "mosaic": Door(_file("input.tif", _read_mosaic), lambda: [_tiff()]),
    "bank": Door(_read_bank, lambda: [_bank()]),
    "received-bank": Door(_received, lambda: [_SIGNED + _bank(), _bank()]),
    "manifest": Door(_manifest, lambda: [_manifest_seed()]),
    "labels": Door(_labels, lambda: [b"red roof\nblue roof\n", b'[[labels]]\ntext = "red roof"\nthreshold = 0.5\n']),
    "outbox-row": Door(_outbox, lambda: [json.dumps({"id": "f-1", "type": "begin", "label": "x"}).encode()]),
    "outbox-file": Door(_outbox_file, lambda: [_sqlite_seed()]),
    "journal": Door(_journal, lambda: [_journal_seed()]),
    "flight-record": Door(_flight_record, lambda: [json.dumps(_RECORD).encode()]),
    "link": Door(_text(_link), lambda: [b"mqtt://u:p@h:1883/of#rate=1000", b"cot+udp://239.2.3.1:6969#stale=60"]),
    "redact": Door(_text(_redact), lambda: [b"rtsp://u:p@h/x?user=a&password=b", b"gst://a location=rtsp://u:p@h ! x"]),
    "source": Door(_text(_source), lambda: [b"frames=3&fps=0&size=64x64&faults=torn@1,clock@2:+3600s"]),
    "camera": Door(_text(_camera), lambda: [b"hfov=71.6,vfov=56.8,gimbal=-90", b"f35=24", b"3x4", b"10/60"]),
    "minisign": Door(_text(_minisign), lambda: [_SIGNED, b"counter:1 target:* expires:2030-01-01"]),
    "tegrastats": Door(_text(_tegrastats), lambda: [b"RAM 1/2MB (lfb 1x4MB) CPU [1%@729,off] cpu@41.5C VDD_IN 4W/4W"]),
    "health": Door(_health, lambda: _REQUESTS),
    "webhook": Door(_webhook, lambda: _ANSWERS),
    "klv": Door(_klv, lambda: [_klv_seed()]),
    "rtsp": Door(_rtsp, lambda: [_rtsp_seed()]),
    "terrain": Door(_file("input.tif", _terrain), lambda: [_terrain_seed()]),
    "config": Door(_config, lambda: [b'source = "a.mp4"\nfps = 5\nlabels = ["x"]\nbudget_mb = 400\n']),
    "mbtiles": Door(_tiles(".mbtiles"), lambda: [_mbtiles_seed()]),
    "pmtiles": Door(_tiles(".pmtiles"), lambda: [_pmtiles_seed()]),
    "regions": Door(_file("boxes.json", _regions), lambda: [json.dumps(_COCO).encode()]),
    "url-list": Door(_file("list.txt", _url_list), lambda: [b"# pictures\nhttps://h/a.jpg\ns3://b/*.tif\nc.jpg\n"]),
    "review-zip": Door(_review_zip, _review_seeds),
    "bulk-store": Door(_bulk_store, lambda: [b'{"number":0,"items":[]}', b'{"schema":1,"side":224,"width":4}']),
    "bulk-rows": Door(_file("input.parquet", _bulk_rows), lambda: [_rows_seed()]),
    "npz": Door(_npz, lambda: [_npz_seed()], (ValueError,)),
    "recording": Door(_file("input.bin", _recording), _recordings),
}  # fmt: skip
