"""Makes the telemetry corpus again, byte for byte: stills with odd tags, and logs with odd contents.

    python tests/corpus/telemetry/make.py [FOLDER]

Nothing is fetched. Each input is small and shows one thing; what it must give stands in expected.json.
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).parent

# The smallest grey JPEG: 8 x 8 pixels, without its start marker, so that tag segments can be put before it.
PICTURE = bytes.fromhex(
    "ffdb004300" + "01" * 64 + "ffc0000b080008000801011100" + "ffc4001400010000000000000000000000000000000000"
    "ffc40014100100000000000000000000000000000000" + "ffda0008010100003f0037ffd9"
)
LAT, LON = -34.123456, -58.654321
DJI = "http://www.dji.com/drone-dji/1.0/"
ADOBE = "http://ns.adobe.com/exif/1.0/"
GOOD = {
    "GpsLatitude": "-34.123456", "GpsLongitude": "-58.654321", "AbsoluteAltitude": "+120.50",
    "RelativeAltitude": "+80.10", "GimbalYawDegree": "+10.00", "GimbalPitchDegree": "-90.00",
    "GimbalRollDegree": "+0.00", "FlightYawDegree": "+12.00", "FlightPitchDegree": "+1.00", "FlightRollDegree": "-1.00",
}  # fmt: skip

Entry = tuple[int, int, int, bytes]  # tag, type, count, value


def text(tag: int, value: str) -> Entry:
    raw = value.encode() + b"\0"
    return tag, 2, len(raw), raw


def fractions(tag: int, *pairs: tuple[int, int]) -> Entry:
    return tag, 5, len(pairs), b"".join(struct.pack("<II", *pair) for pair in pairs)


def short(tag: int, *values: int) -> Entry:
    return tag, 3, len(values), struct.pack(f"<{len(values)}H", *values)


def long(tag: int, *values: int) -> Entry:
    return tag, 4, len(values), struct.pack(f"<{len(values)}I", *values)


def directory(entries: list[Entry], start: int) -> bytes:
    """Return one little-endian tag directory, to lie at ``start``, with its values behind it."""
    entries = sorted(entries)
    behind = start + 2 + 12 * len(entries) + 4
    head, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        if len(value) <= 4:
            stored = value.ljust(4, b"\0")
        else:
            stored, values = struct.pack("<I", behind + len(values)), values + value + b"\0" * (len(value) % 2)
        head += struct.pack("<HHI", tag, kind, count) + stored
    return head + b"\0\0\0\0" + values


def tiff(picture: list[Entry], exif: list[Entry], gps: list[Entry], start: int = 8, body: bytes = b"") -> bytes:
    """Return a TIFF structure of a picture's directory at ``start``, an Exif and a GPS directory behind it."""
    head = b"II*\0" + struct.pack("<I", start) + body
    size = len(directory([*picture, long(0x8769, 0), long(0x8825, 0)], start))
    exif_raw = directory(exif, start + size)
    main = directory([*picture, long(0x8769, start + size), long(0x8825, start + size + len(exif_raw))], start)
    return head + main + exif_raw + directory(gps, start + size + len(exif_raw))


def degrees(value: float) -> tuple[tuple[int, int], ...]:
    whole, minutes = int(value), int(value % 1 * 60)
    return (whole, 1), (minutes, 1), (round((value * 60 % 1) * 60 * 10000), 10000)


def gps(*more: Entry) -> list[Entry]:
    """Return GPS tags of the corpus's position, with more tags or other values."""
    tags = [text(1, "S"), fractions(2, *degrees(-LAT)), text(3, "W"), fractions(4, *degrees(-LON)),
            (5, 1, 1, b"\0"), fractions(6, (1205, 10))]  # fmt: skip
    return [*(tag for tag in tags if tag[0] not in {entry[0] for entry in more}), *more]


def xmp(values: dict[str, str], prefix: str = "drone-dji", address: str = DJI, inside: str = "") -> bytes:
    attributes = " ".join(f'{prefix}:{name}="{value}"' for name, value in values.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:{prefix}="{address}" {attributes}>{inside}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def segment(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def jpeg(exif: bytes = b"", *packets: bytes) -> bytes:
    head = segment(b"Exif\0\0" + exif) if exif else b""
    return b"\xff\xd8" + head + b"".join(segment(b"http://ns.adobe.com/xap/1.0/\0" + p) for p in packets) + PICTURE


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(exif: bytes, packet: bytes) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"\0" * 72, 9))
    note = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(packet, 9))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"eXIf", exif) + note + data + png_chunk(b"IEND", b"")


def webp(exif: bytes, packet: bytes) -> bytes:
    chunks = b""
    for kind, data in ((b"VP8L", bytes.fromhex("2f07c001000710")), (b"EXIF", exif), (b"XMP ", packet)):
        chunks += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([0x0C, 0, 0, 0, 7, 0, 0, 7, 0, 0])
    return b"RIFF" + struct.pack("<I", 4 + len(extended + chunks)) + b"WEBP" + extended + chunks


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heif(exif: bytes, packet: bytes) -> bytes:
    """Return the tag items of a HEIF file, without a picture."""
    items = (struct.pack(">I", 6) + b"Exif\0\0" + exif, packet)
    kinds = (b"Exif\0\0", b"mime\0application/rdf+xml\0")
    infos = [box(b"infe", b"\2\0\0\0", struct.pack(">HH", i + 1, 0), kind) for i, kind in enumerate(kinds)]
    brand = box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(start: int) -> bytes:
        places, places_raw = start, b""
        for i, item in enumerate(items):
            places_raw += struct.pack(">HHHHII", i + 1, 0, 0, 1, places, len(item))
            places += len(item)
        table = box(b"iloc", b"\1\0\0\0", b"\x44\0", struct.pack(">H", len(items)), places_raw)
        return box(b"meta", b"\0\0\0\0", box(b"iinf", b"\0\0\0\0", struct.pack(">H", len(infos)), *infos), table)

    start = len(brand) + len(meta(0)) + 8
    return brand + meta(start) + box(b"mdat", *items)


def strip_tiff(gps_tags: list[Entry], behind: bool) -> bytes:
    """Return a grey TIFF whose directories lie behind more than 256 kB of pixels, or before a few."""
    width, height = (512, 513) if behind else (8, 8)
    pixels = bytes(width * height)
    sizes = [long(256, width), long(257, height), short(258, 8), short(259, 1), short(262, 1), long(273, 8),
             short(277, 1), long(278, height), long(279, len(pixels))]  # fmt: skip
    return tiff(sizes, [], gps_tags, 8 + len(pixels), pixels)


def big_tiff() -> bytes:
    """Return a big-endian BigTIFF with its GPS directory at the end."""

    def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack(">HHQ", tag, kind, count) + value.ljust(8, b"\0")

    first = struct.pack(">Q", 1) + entry(0x8825, 4, 1, struct.pack(">I", 16 + 8 + 20 + 8)) + bytes(8)
    start = 16 + len(first)
    values = start + 8 + 4 * 20 + 8
    numbers = b"".join(struct.pack(">II", *pair) for side in (LAT, LON) for pair in degrees(-side))
    gps_raw = struct.pack(">Q", 4) + entry(1, 2, 2, b"S\0") + entry(2, 5, 3, struct.pack(">Q", values))
    gps_raw += entry(3, 2, 2, b"W\0") + entry(4, 5, 3, struct.pack(">Q", values + 24)) + bytes(8)
    return b"MM\0+" + struct.pack(">HHQ", 8, 0, 16) + first + gps_raw + numbers


def dng() -> bytes:
    """Return a TIFF structure whose XMP lies in a sub-directory, as some DJI raw files have it."""
    packet = xmp(GOOD)
    sub_start = 8 + len(directory([long(0x14A, 0)], 8))
    sub = directory([(700, 1, len(packet), packet)], sub_start)
    return b"II*\0" + struct.pack("<I", 8) + directory([long(0x14A, sub_start)], 8) + sub


def extended_xmp() -> bytes:
    """Return a JPEG whose XMP continues in a second segment, split in two pieces."""
    packet = xmp({name: GOOD[name] for name in ("GimbalYawDegree", "GimbalPitchDegree", "GimbalRollDegree")})
    mark, digest, half = b"http://ns.adobe.com/xmp/extension/\0", b"0" * 32, len(packet) // 2
    pieces = [(half, packet[half:]), (0, packet[:half])]  # in the wrong order
    more = b"".join(segment(mark + digest + struct.pack(">II", len(packet), at) + piece) for at, piece in pieces)
    first = xmp({name: value for name, value in GOOD.items() if "Gimbal" not in name})
    return b"\xff\xd8" + segment(b"http://ns.adobe.com/xap/1.0/\0" + first) + more + PICTURE


def stills() -> dict[str, bytes]:
    """Return every still of the corpus by its name."""
    plain = tiff([], [], gps())

    def timed(*tags: Entry, exif: tuple[Entry, ...] = ()) -> bytes:
        return jpeg(tiff([], list(exif), gps(*tags)))

    def dji(**changed: str) -> bytes:
        return jpeg(plain, xmp(GOOD | changed))

    day, clock = text(0x1D, "2024:05:01"), fractions(7, (12, 1), (0, 1), (5, 1))
    lens = [short(0xA405, 24)]
    skydio = "https://www.skydio.com/drone-skydio/1.0/"
    parrot = "http://www.parrot.com/drone-parrot/1.0/"
    return {
        # one useless time
        "time-minute-75.jpg": timed(day, fractions(7, (10, 1), (75, 1), (0, 1))),
        "time-0-over-0.jpg": timed(day, fractions(7, (0, 0), (0, 0), (0, 0))),
        "date-1980.jpg": timed(text(0x1D, "1980:01:06"), clock),
        "date-feb-30.jpg": timed(text(0x1D, "2024:02:30"), clock),
        "date-1024-weeks-early.jpg": timed(
            text(0x1D, "2004:09:15"), clock, exif=(text(0x9003, "2024:05:01 14:00:05"),)
        ),
        "date-camera-at-2015.jpg": timed(day, clock, exif=(text(0x9003, "2015:01:01 00:00:10"),)),
        "status-void.jpg": jpeg(tiff([], [], gps(text(9, "V")))),
        "xmp-adobe-altitude.jpg": jpeg(
            tiff([], [], [tag for tag in gps() if tag[0] < 5]),
            xmp({"GPSAltitude": "2361/50", "GPSAltitudeRef": "0"}, "exif", "http://ns.adobe.com/exif/1.0/"),
        ),
        "clock-as-text.jpg": timed(day, text(7, "12:00:05")),
        "altitude-ffffffff.jpg": timed(fractions(6, (0xFFFFFFFF, 1))),
        "altitude-below-as-text.jpg": timed(text(5, "1"), fractions(6, (305, 10))),
        "xmp-height-underscore.jpg": dji(RelativeAltitude="1_000"),
        "xmp-rtk-minus-1.jpg": dji(RtkStdLat="-1", RtkStdLon="-1"),
        "xmp-lens-and-zoom.jpg": jpeg(
            plain, xmp(GOOD), xmp({"FocalLengthIn35mmFilm": "24", "DigitalZoomRatio": "4/1"}, "exif", ADOBE)
        ),
        "date-one-digit.jpg": timed(text(0x1D, "2024:5:1"), clock),
        "date-slashes.jpg": timed(text(0x1D, "2024/05/01"), clock),
        "offset-na-gps-good.jpg": timed(day, clock, exif=(text(0x9003, "2024:05:01 12:00:05"), text(0x9011, "N/A"))),
        "taken-fraction.jpg": timed(
            exif=(text(0x9003, "2024:05:01 14:00:05"), text(0x9291, "25"), text(0x9011, "+02:00"))
        ),
        "utc-broken-gps-good.jpg": jpeg(tiff([], [], gps(day, clock)), xmp(GOOD | {"UTCAtExposure": "12:00"})),
        # one useless value in Exif
        "altitude-0-over-0.jpg": jpeg(tiff([], [], gps(fractions(6, (0, 0))))),
        "h-error-0-over-0.jpg": jpeg(tiff([], [], gps(fractions(0x1F, (0, 0))))),
        "latitude-0-over-0-xmp-good.jpg": jpeg(
            tiff([], [], gps(fractions(2, (0, 0), (0, 0), (0, 0)))), xmp(GOOD)
        ),
        "degrees-decimal.jpg": jpeg(
            tiff([], [], gps(fractions(2, (34123456, 1000000)), fractions(4, (58654321, 1000000))))
        ),
        "no-hemisphere.jpg": jpeg(tiff([], [], [tag for tag in gps() if tag[0] != 1])),
        # one useless value in XMP
        "xmp-latitude-empty.jpg": dji(GpsLatitude=""),
        "xmp-latitude-200.jpg": dji(GpsLatitude="200"),
        "xmp-altitude-na.jpg": dji(AbsoluteAltitude="N/A"),
        "xmp-yaw-inf.jpg": dji(GimbalYawDegree="inf"),
        "xmp-pitch-6553.jpg": dji(GimbalPitchDegree="6553.5"),
        "xmp-flight-empty.jpg": dji(FlightYawDegree="", FlightPitchDegree=""),
        "xmp-rtk-zeros.jpg": dji(RtkStdLat="0", RtkStdLon="0", RtkFlag="50"),
        "xmp-latitude-fraction.jpg": dji(GpsLatitude="-34123456/1000000"),
        "xmp-units.jpg": dji(RelativeAltitude="80.10 m", AbsoluteAltitude="120,50", GimbalPitchDegree="-90.0°"),
        "xmp-broken-xml.jpg": jpeg(plain, xmp(GOOD).replace(b"</rdf:RDF>", b"&<")),
        "xmp-other-prefix.jpg": jpeg(b"", xmp(GOOD, "d")),
        "xmp-longtitude.jpg": jpeg(b"", xmp({k.replace("Longi", "Longti"): v for k, v in GOOD.items()})),
        "xmp-elements.jpg": jpeg(
            b"", xmp({}, inside="".join(f"<drone-dji:{k}>\n {v} </drone-dji:{k}>" for k, v in GOOD.items()))
        ),
        "xmp-only-adobe.jpg": jpeg(
            b"",
            xmp({"GPSLatitude": "34,7.40736S", "GPSLongitude": "58,39.25926W"}, "exif", "http://ns.adobe.com/exif/1.0/"),
        ),
        "xmp-exif-5-km-apart.jpg": dji(GpsLatitude="-34.173456"),
        "xmp-extended.jpg": extended_xmp(),
        # other containers
        "behind-pixels.tif": strip_tiff(gps(), behind=True),
        "before-pixels.tif": strip_tiff(gps(), behind=False),
        "big-endian.bigtiff.tif": big_tiff(),
        "xmp-in-sub-directory.dng": dng(),
        "tags.png": png(plain, xmp(GOOD)),
        "tags.webp": webp(plain, xmp(GOOD)),
        "tags.heic": heif(plain, xmp(GOOD)),
        # gimbals that nothing measured
        "gimbal-zero-nose-east.jpg": dji(GimbalYawDegree="0", GimbalPitchDegree="0", FlightYawDegree="90"),
        "gimbal-zero-nose-north.jpg": dji(GimbalYawDegree="+0.00", GimbalPitchDegree="+0.00", FlightYawDegree="-2.5"),
        "gimbal-zero-all-zero.jpg": dji(
            GimbalYawDegree="0", GimbalPitchDegree="0", FlightYawDegree="0", FlightPitchDegree="0", FlightRollDegree="0"
        ),
        "gimbal-zero-no-flight.jpg": jpeg(
            plain, xmp({k: ("0.0" if "Gimbal" in k else v) for k, v in GOOD.items() if "Flight" not in k})
        ),
        # lenses and zoom
        "zoom-2-5.jpg": jpeg(tiff([], [*lens, fractions(0xA404, (5, 2))], gps()), xmp(GOOD)),
        "zoom-0.jpg": jpeg(tiff([], [*lens, fractions(0xA404, (0, 10))], gps()), xmp(GOOD)),
        "zoom-0-over-0.jpg": jpeg(tiff([], [*lens, fractions(0xA404, (0, 0))], gps()), xmp(GOOD)),
        "zoom-half.jpg": jpeg(tiff([], [*lens, fractions(0xA404, (1, 2))], gps()), xmp(GOOD)),
        "f35-zero.jpg": jpeg(tiff([], [short(0xA405, 0)], gps()), xmp(GOOD)),
        "focal-plane.jpg": jpeg(
            tiff([], [fractions(0x920A, (88, 10)), fractions(0xA20E, (4146, 10)), short(0xA210, 4), long(0xA002, 5472)],
                 gps()), xmp(GOOD)
        ),
        "calibrated.jpg": jpeg(tiff([], [long(0xA002, 640)], gps()), xmp(GOOD | {"CalibratedFocalLength": "1100"})),
        # other makers
        "autel-old.jpg": jpeg(
            tiff([text(0x10F, "Autel Robotics")], lens, gps()),
            xmp({k.replace("Longi", "Longti"): v for k, v in GOOD.items()}, "drone", "http://www.autelrobotics.com/drone/1.0/"),
        ),
        "autel-scheme-as-horizon.jpg": jpeg(
            tiff([text(0x10F, "Camera")], lens, gps()),
            xmp({"Yaw": "10", "Pitch": "-60", "Roll": "0"}, "Camera", "http://pix4d.com/camera/1.0"),
        ),
        "autel-scheme.jpg": jpeg(
            tiff([text(0x10F, "Autel Robotics")], lens, gps()),
            xmp({"Yaw": "10", "Pitch": "30", "Roll": "0"}, "Camera", "http://pix4d.com/camera/1.0/"),
        ),
        "sensefly.jpg": jpeg(
            tiff([text(0x10F, "senseFly")], lens, gps()),
            xmp({"Yaw": "100.5", "Pitch": "5.25", "Roll": "-3.5", "GPSXYAccuracy": "1.25"}, "Camera",
                "http://ns.sensefly.com/Camera/1.0/"),
        ),
        "parrot-anafi.jpg": jpeg(
            tiff([text(0x10F, "Parrot")], lens, gps()),
            xmp({"CameraYawDegree": "-93.5", "CameraPitchDegree": "-78.362686", "CameraRollDegree": "-0.322913",
                 "DroneYawDegree": "-92", "DronePitchDegree": "1", "DroneRollDegree": "2"}, "drone-parrot", parrot),
        ),
        "parrot-sequoia.jpg": jpeg(
            tiff([text(0x10F, "Parrot")], lens, gps()),
            xmp({}, "Camera", "http://pix4d.com/camera/1.0", "".join(
                f"<Camera:{k}>{v}</Camera:{k}>"
                for k, v in {"Yaw": "10", "Pitch": "0", "Roll": "0", "AboveGroundAltitude": "61.5"}.items()
            )),
        ),
        "skydio-attributes.jpg": jpeg(
            b"",
            xmp({"Latitude": "-34.123456", "Longitude": "-58.654321", "AbsoluteAltitude": "120.5",
                 "RelativeAltitude": "80.1"}, "drone-skydio", skydio,
                '<drone-skydio:CameraOrientationNED drone-skydio:Roll="0.2" drone-skydio:Pitch="-84" '
                'drone-skydio:Yaw="146.5"/>'),
        ),
        "skydio-resource.jpg": jpeg(
            plain,
            xmp({"AbsoluteAltitude": "120.5", "RelativeAltitude": "80.1"}, "drone-skydio", skydio,
                '<drone-skydio:CameraOrientationFLU rdf:parseType="Resource"><drone-skydio:Yaw>1</drone-skydio:Yaw>'
                "<drone-skydio:Pitch>2</drone-skydio:Pitch></drone-skydio:CameraOrientationFLU>"
                '<drone-skydio:CameraOrientationNED rdf:parseType="Resource"><drone-skydio:Yaw>146.5</drone-skydio:Yaw>'
                "<drone-skydio:Pitch>-84</drone-skydio:Pitch><drone-skydio:Roll>0.2</drone-skydio:Roll>"
                "</drone-skydio:CameraOrientationNED>"),
        ),
        "no-position.jpg": jpeg(tiff([], lens, []), xmp({"GimbalYawDegree": "1"})),
        "no-tags.jpg": jpeg(),
    }  # fmt: skip


MAVLINK = {24: (24, 30, "<QiiiHHHHBB"), 33: (104, 28, "<IiiiihhhH"), 0: (50, 9, "<IBBBBB")}  # seed, length, layout
START_US = 1_714_557_600_000_000  # 2024-05-01T10:00:00Z


def crc_x25(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        part = (byte ^ crc) & 0xFF
        part = (part ^ part << 4) & 0xFF
        crc = crc >> 8 ^ part << 8 ^ part << 3 ^ part >> 4
    return crc


def mavlink(system: int, kind: int, *values: int) -> bytes:
    """Return one MAVLink 2 packet, its zeros at the end kept."""
    seed, _, layout = MAVLINK[kind]
    payload = struct.pack(layout, *values)
    head = struct.pack("<BBBBBB", len(payload), 0, 0, 0, system, 1) + kind.to_bytes(3, "little")
    return b"\xfd" + head + payload + struct.pack("<H", crc_x25(head + payload + bytes([seed])))


def tlog(aircraft: dict[int, tuple[float, float]], fixes: int = 20) -> bytes:
    """Return a ground station's log of several aircraft that fly north, ten positions a second."""
    raw = b""
    for i in range(fixes):
        for system, (lat, lon) in aircraft.items():
            packet = mavlink(
                system,
                33,
                60_000 + i * 100,
                round(lat * 1e7) + (i * 10 if lat else 0),
                round(lon * 1e7),
                550_000,
                50_000,
                0,
                0,
                0,
                9000,
            )
            raw += struct.pack(">Q", START_US + i * 100_000) + packet
    return raw


def dataflash(messages: str, week: int = 2312) -> bytes:
    """Return an ArduPilot log of ten fixes a second; ``messages`` names what it holds besides GPS."""
    formats = {
        "GPS": (
            130,
            "QBBIHBcLLefffB",
            "<QBBIHBhiiifffB",
            "TimeUS,I,Status,GMS,GWk,NSats,HDop,Lat,Lng,Alt,Spd,GCrs,VZ,U",
        ),
        "POS": (131, "QLLfff", "<Qiifff", "TimeUS,Lat,Lng,Alt,RelHomeAlt,RelOriginAlt"),
        "ATT": (132, "QccccCC", "<QhhhhHH", "TimeUS,DesRoll,Roll,DesPitch,Pitch,DesYaw,Yaw"),
        "BARO": (133, "QBf", "<QBf", "TimeUS,I,Alt"),
    }

    def message(kind: int, layout: str, *values: float | bytes) -> bytes:
        return b"\xa3\x95" + bytes([kind]) + struct.pack(layout, *values)

    raw = b""
    own = {"FMT": (128, "BBnNZ", "<BB4s16s64s", "Type,Length,Name,Format,Columns")}
    for name, (kind, letters, layout, columns) in (own | formats).items():
        size = struct.calcsize(layout) + 3
        raw += message(128, "<BB4s16s64s", kind, size, name.encode(), letters.encode(), columns.encode())
    gms = 3 * 86_400_000 + 10 * 3_600_000 + 18_000  # Wednesday 10:00:00 UTC, 18 leap seconds later in GPS time
    for i in range(20):
        time_us, north = 60_000_000 + i * 100_000, i * 10
        fix = (-341234560 + north, -586543210)
        values = {
            "GPS": (time_us, 0, 3, gms + i * 100, week, 12, 90, *fix, 15050, 5.0, 0.0, 0.0, 1),
            "POS": (time_us, *fix, 150.5, 80.25, 81.0),
            "ATT": (time_us, 0, 150, 0, -250, 0, 9000),
            "BARO": (time_us, 0, 79.5),
        }
        for name in ("ATT", "BARO", "GPS", "POS"):
            if name == "GPS" or name in messages:
                raw += message(formats[name][0], formats[name][2], *values[name])
    return raw


def logs() -> dict[str, bytes]:
    """Return every log of the corpus by its name."""
    two = {1: (46.0, 7.0), 2: (46.1, 7.1)}
    whole = dataflash("POS ATT BARO")
    return {
        "two-aircraft.tlog": tlog(two),
        "clock-set-in-flight.tlog": stepped_tlog(),
        "one-aircraft-of-system-7.tlog": tlog({7: (46.1, 7.1)}),
        "one-aircraft-and-one-without-a-fix.tlog": tlog({2: (46.1, 7.1), 9: (0.0, 0.0)}),
        "three-aircraft.tlog": tlog({**two, 200: (-33.0, 151.0)}),
        "two-aircraft-damaged.tlog": tlog(two)[:-5].replace(b"\xfd\x1c", b"\xfd\x00", 1),
        "position.bin": whole,
        "gps-alone.bin": dataflash(""),
        "gps-and-barometer.bin": dataflash("BARO"),
        "cut-off.bin": whole[:-31],
        "junk-inside.bin": whole[:1500] + b"\0" * 700 + whole[1500:],
        "no-gps-time.bin": dataflash("POS", week=0),
        "not-a-log.bin": b"hello",
        "text-of-2014.log": (
            b"FMT, 128, 89, FMT, BBnNZ, Type,Length,Name,Format,Columns\r\n"
            b"FMT, 130, 45, GPS, BIHBcLLeeEefI, Status,TimeMS,Week,NSats,HDop,Lat,Lng,RelAlt,Alt,Spd,GCrs,VZ,T\r\n"
            b"GPS, 3, 295216000, 2312, 12, 0.90, -34.1234560, -58.6543210, 80.25, 150.50, 5.00, 0.00, 0.0, 60000\r\n"
            b"GPS, 3, 295216200, 2312, 12, 0.90, -34.1234550, -58.6543210, 80.25, 150.50, 5.00, 0.00, 0.0, 60200\r\n"
        ),
        "calls-itself-gps.log": b"FMT, 128, 89, FMT, BBnNZ, Type,Length,Name,Format,Columns\n",
    }


def tables() -> dict[str, bytes]:
    """Return every table of the corpus by its name."""
    airdata = (
        "time(millisecond),datetime(utc),latitude,longitude,height_above_takeoff(feet),altitude_above_seaLevel(feet),"
        "xSpeed(mph),ySpeed(mph),compass_heading(degrees),pitch(degrees),roll(degrees),gimbal_heading(degrees),"
        "gimbal_pitch(degrees),isPhoto\r\n"
    )
    rows = [
        (
            1000 + 100 * i,
            f"2024-05-01 10:00:{i // 10:02}",
            f"{LAT:.6f}",
            f"{LON:.6f}",
            262.8,
            395.3,
            10,
            0,
            12,
            1,
            -1,
            10,
            -90,
            0,
        )
        for i in range(25)
    ]
    flytrex = (
        "latitude,longitude,altitude(feet),ascent(feet),speed(mph),time(millisecond),datetime(utc),satellites\n"
        "14.5429408058,-90.5219997482,4800.20565465,336.2861,20.9,334100.0,2016-07-23 22:50:45.288000,19\n"
        "14.5429477414,-90.5220156858,4800.53373865,336.614184,20.7,334300.0,2016-07-23 22:50:45.590000,19\n"
    )
    plain = "time,lat,lon,rel_alt,gimbal_yaw,gimbal_pitch\n2024-05-01T10:00:00Z,-34.123456,-58.654321,80.1,10,-90\n"
    record = (
        "sep=,\nCUSTOM.updateTime [UTC],OSD.latitude,OSD.longitude,OSD.height [ft],OSD.yaw,OSD.pitch,OSD.roll,"
        "GIMBAL.yaw,GIMBAL.pitch,GIMBAL.roll\n2024-05-01 10:00:00.00,-34.123456,-58.654321,262.8,12,1,-1,10,-90,0\n"
    )
    return {
        "airdata.csv": (airdata + "".join(",".join(map(str, row)) + "\r\n" for row in rows)).encode("utf-8-sig"),
        "flytrex.csv": flytrex.encode(),
        "dji-flight-record.csv": record.encode(),
        "semicolons.csv": plain.replace(",", ";").replace(".", ",").encode(),
        "tabs.csv": plain.replace(",", "\t").encode(),
        "utf-16.csv": plain.encode("utf-16"),
        "one-bad-value.csv": plain.replace(",80.1,", ",n/a,").encode(),
        "week-dates.csv": plain.replace("2024-05-01T10", "2024-W18-3T10").encode(),
    }


def stepped_tlog() -> bytes:
    """Return a station's log whose clock was at 1970 until it was set, two seconds into the flight."""
    raw = tlog({1: (46.0, 7.0)}, 40)
    size = len(raw) // 40
    early = b"".join(struct.pack(">Q", i * 100_000) + raw[i * size + 8 : (i + 1) * size] for i in range(20))
    return early + raw[20 * size :]


# Values that MISB ST 0601 itself gives as examples, with what they mean.
STANDARD = {
    2: "0005614a4e80a800", 5: "71c2", 6: "fd3d", 7: "08b8", 13: "5595b66d", 14: "5b5360c4", 15: "c221", 16: "cd9c",
    17: "d917", 18: "724a0a20", 19: "87f84b86", 20: "7dc58ce4", 21: "03830926", 25: "34f3",
}  # fmt: skip


def local_set(changed: dict[int, str], length: int = 1) -> bytes:
    """Return one ST 0601 set with its checksum; ``length`` is how many bytes its own length takes."""
    items = b"".join(
        bytes([key, len(value) // 2]) + bytes.fromhex(value) for key, value in (STANDARD | changed).items() if value
    )
    size = len(items) + 4
    lengths = {1: bytes([size]), 2: bytes([0x81, size]), 3: b"\x82" + struct.pack(">H", size)}
    body = bytes.fromhex("060e2b34020b01010e01030101000000") + lengths[length] + items + b"\x01\x02"
    return body + struct.pack(">H", sum(byte << (8 if i % 2 == 0 else 0) for i, byte in enumerate(body)) & 0xFFFF)


def metadata() -> dict[str, bytes]:
    """Return every bare KLV stream of the corpus by its name."""
    good = local_set({})
    return {
        "standard.klv": good,
        "long-lengths.klv": local_set({}, 2) + local_set({2: "0005614a4e81a800"}, 3),
        "one-bad-checksum.klv": good[:30] + bytes([good[30] ^ 1]) + good[31:] + local_set({2: "0005614a4e81a800"}),
        "roll-out-of-range.klv": local_set({7: "8000"}),
        "no-gimbal-no-view.klv": local_set({18: "", 16: "", 25: ""}),
        "no-position.klv": local_set({13: "80000000"}),
        "cut-off.klv": good + good[:40],
        "another-standard.klv": bytes.fromhex("060e2b34020b01010e0103010b000000") + bytes([4]) + b"\1\2\0\0",
    }


def main(folder: Path) -> None:
    """Write the corpus."""
    for name, content in (stills() | logs() | tables() | metadata()).items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
