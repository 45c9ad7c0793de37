"""Decoding through PyAV: pictures as planes, their colour as the stream states it, and which of them are whole."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import missing_extra
from overflight.runtime.planes import Matrix, Planes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from numpy.typing import NDArray

_PLANAR = re.compile(r"yuva?j?(420|422|444|440|411|410)p(\d+)?(?:le)?")
_SUBSAMPLING = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1), "410": (4, 4)}
_MATRICES: dict[int, Matrix] = {
    0: "rgb", 1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco", 9: "bt2020", 10: "bt2020",
}  # fmt: skip
_UNSPECIFIED, _FULL_RANGE, _BT2020_PRIMARIES = 2, 2, 9
# ITU-T H.273, 8.7: the place of the first chroma sample, in luma samples.
_SITINGS = ((0.0, 0.5), (0.5, 0.5), (0.0, 0.0), (0.5, 0.0), (0.0, 1.0), (0.5, 1.0))
_AV1_SITINGS = {1: _SITINGS[0], 2: _SITINGS[2]}
_STATED = re.compile(r"chroma_sample_(loc_type_top_field|position) .*= (\d)")
_HD_WIDTH, _HD_HEIGHT = 1024, 576


def pyav() -> ModuleType:
    """Import PyAV. Raises MissingError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise missing_extra("PyAV", "cpu") from error
    module: ModuleType = av
    return module


def has_pyav() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def picture_of(
    frame: Any, pixel_aspect: float = 1.0, siting: tuple[float, float] | None = None
) -> Planes | NDArray[np.uint8]:
    """Return a decoded frame's picture as its stream wants it shown: planes without a copy, or RGB where it has none.

    ``siting`` is what the stream states about chroma's place.
    """
    name = frame.format.name
    mirrored, quarters = _display(frame)
    planes = _planes(frame, name)
    if planes is None:
        if frame.format.is_rgb or name == "pal8":
            colours: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
            return np.rot90(colours[:, ::-1] if mirrored else colours, quarters)
        deep = max(part.bits for part in frame.format.components) > 8
        frame = frame.reformat(format="yuv444p16le" if deep else "yuv444p")
        planes = _planes(frame, frame.format.name)
        assert planes is not None
    luma, chroma, bits, subsampling = planes
    picture = Planes(
        luma,
        chroma,
        "grey" if not chroma else _matrix(frame, name),
        name.startswith("yuvj") or int(frame.color_range) == _FULL_RANGE,
        bits,
        subsampling,
        siting if siting is not None and subsampling[0] == 2 else _usual_siting(name, subsampling),
        pixel_aspect,
    )
    return (picture.mirror() if mirrored else picture).turn(quarters)


def _display(frame: Any) -> tuple[bool, int]:
    """Return whether left and right are exchanged first, and how many quarters counter-clockwise the picture turns.

    PyAV's own ``rotation`` passes over the first. The matrix maps stored x and y to shown ones (ISO/IEC 14496-12).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, 0
    across_x, across_y, _, down_x, down_y = (float(value) for value in np.frombuffer(data, np.int32, 5))
    if abs(across_x) + abs(down_y) >= abs(across_y) + abs(down_x):
        mirrored = (across_x < 0) != (down_y < 0)
        return mirrored, 2 if down_y < 0 else 0
    mirrored = (across_y < 0) == (down_x < 0)
    return mirrored, (1 if across_y < 0 else 3) if not mirrored else (3 if across_y < 0 else 1)


_Layout = tuple["NDArray[np.uint8]", tuple["NDArray[np.uint8]", ...], int, tuple[int, int]]


def _planes(frame: Any, name: str) -> _Layout | None:
    """Luma, chroma, bits and subsampling of the layouts that decoders give; None for another."""
    if found := _PLANAR.fullmatch(name):
        bits = int(found[2] or 8)
        parts = [_array(frame.planes[index], bits) for index in range(3)]
        return parts[0], (parts[1], parts[2]), bits, _SUBSAMPLING[found[1]]
    if name in {"nv12", "nv21"}:
        pairs = _array(frame.planes[1], 8, 2)
        first, second = pairs[:, 0::2], pairs[:, 1::2]
        return _array(frame.planes[0], 8), (first, second) if name == "nv12" else (second, first), 8, (2, 2)
    if found := re.fullmatch(r"gray(\d+)?(?:le)?", name):
        bits = int(found[1] or 8)
        return _array(frame.planes[0], bits), (), bits, (1, 1)
    return None


def _array(plane: Any, bits: int, samples: int = 1) -> Any:
    kind = np.uint8 if bits == 8 else np.uint16
    rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // np.dtype(kind).itemsize)
    return rows[: plane.height, : plane.width * samples]


def _matrix(frame: Any, name: str) -> Matrix:
    """Take what the stream states; where it states nothing, what players assume: JPEG's, or the one of its size."""
    stated = int(frame.colorspace)
    if stated in _MATRICES and not (stated == 0 and not frame.format.is_rgb):
        return _MATRICES[stated]
    if int(frame.color_primaries) == _BT2020_PRIMARIES:
        return "bt2020"
    large = max(frame.width, frame.height) > _HD_WIDTH or min(frame.width, frame.height) > _HD_HEIGHT
    return "bt709" if large and not name.startswith("yuvj") else "bt601"


def _usual_siting(name: str, subsampling: tuple[int, int]) -> tuple[float, float]:
    """JPEG's chroma lies between the luma samples, MPEG's at the left ones."""
    across, down = subsampling
    jpeg = name.startswith("yuvj")
    return ((across - 1) / 2 if jpeg else 0.0, (down - 1) / 2)


def stated_siting(stream: Any | None, packet: Any) -> tuple[float, float] | None:
    """Return where a stream says its chroma lies, None where it does not say.

    PyAV passes everything on but this, so FFmpeg's own reader of headers is asked.
    """
    from av import FFmpegError, Packet
    from av import logging as messages
    from av.bitstream import BitStreamFilterContext

    if stream is None:
        return None
    try:
        with overheard(messages.INFO) as lines:
            BitStreamFilterContext("trace_headers", in_stream=stream).filter(Packet(bytes(packet)))
    except (FFmpegError, ValueError):
        return None
    for _, _, line in lines:
        if found := _STATED.search(line):
            value = int(found[2])
            if found[1] == "position":
                return _AV1_SITINGS.get(value)
            return _SITINGS[value] if value < len(_SITINGS) else None
    return None


def attentive(context: Any) -> Any:
    """Return a decoder that reports the damage it sees, for a context that has not been used yet.

    FFmpeg's decoder of H.265 passes over errors unless it is asked not to, and its decoder of VP9 does not look for
    them: libvpx, which PyAV's wheels contain, does, for 8 bits.
    """
    av = pyav()
    if context.name == "hevc":
        context.options = context.options | {"err_detect": "explode"}
    deep = context.format is None or any(part.bits > 8 for part in context.format.components)
    if context.name != "vp9" or deep or "libvpx-vp9" not in av.codec.codecs_available:
        return context  # libvpx may be built for 8 bits alone
    looking = av.CodecContext.create("libvpx-vp9", "r")
    looking.extradata = context.extradata
    looking.thread_type, looking.thread_count = context.thread_type, context.thread_count
    for stated in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(looking, stated, getattr(context, stated))
    return looking


class Decoder:
    """One video stream's decoder, which tells whole pictures from damaged ones.

    ``headers`` is the container's stream, which states the pixels' aspect and where chroma lies. After a loss or an
    error no picture passes until one that is built on no other. With ``listening`` the messages of the decoder count as
    errors too; they are heard in the calling thread only, so it needs a decoder of one thread.
    """

    def __init__(self, context: Any, headers: Any, *, listening: bool) -> None:
        self.damaged = 0  # pictures and packets that were not passed on, since the counter was last read
        self._av = pyav()
        self._context, self._headers = context, headers
        self._context.copy_opaque = True  # so that every picture brings back what was known of its packet
        self._siting: tuple[float, float] | None = None
        self._asked = False
        self._broken = self._after_corrupt = self._recovered = False
        self._recovering: int | None = None  # pictures until a gradual refresh is complete
        self._clean_from = self._mistrusted_until = self._latest = -(1 << 62)
        self._failed = False
        self._flagged = False  # whether packets state that they are keyframes: without a parser some formats do not
        self._listening = listening
        self._owed = 0  # packets of which neither a picture nor an error has come
        self._refused = self._interlaced = False

    def decode(
        self, packet: Any, *, corrupt: bool | None = None, key: bool | None = None, recovery: int | None = None
    ) -> Iterator[tuple[Any, Planes | NDArray[np.uint8] | None]]:
        """Yield each decoded frame with its picture, None in place of one that is damaged.

        ``corrupt``, ``key`` and ``recovery`` (so many pictures until all is renewed) are what the transport knows
        better than the packet.
        """
        if not self._asked and packet.size:
            self._siting, self._asked = stated_siting(self._headers, packet), True
        if packet.size:
            self._watch(
                packet,
                corrupt=packet.is_corrupt if corrupt is None else corrupt,
                key=packet.is_keyframe if key is None else key,
                recovery=recovery,
            )
            self._owed += not packet.is_discard
        for frame in self._frames(packet):
            self._owed -= 1
            self._interlaced |= frame.interlaced_frame
            if self._passes(frame):
                yield frame, self._picture(frame)
            else:
                self.damaged += 1
                yield frame, None
        if not packet.size and self._refused and not self._interlaced:  # of fields, two make a picture
            # An error takes with it what else the decoder's threads had ready, or a picture comes in spite of it.
            self.damaged += self._owed

    def lose(self) -> None:
        """Note that packets were lost: what follows is built on them."""
        self._broken, self._recovered = True, False

    def _frames(self, packet: Any) -> list[Any]:
        lines: list[Any] = []
        try:
            if not self._listening:
                return list(self._context.decode(packet))
            with overheard() as lines:
                frames = list(self._context.decode(packet))
        except self._av.FFmpegError:
            if any(_NO_PICTURE in line for _, _, line in lines):
                return []
            self.damaged += 1
            self._owed -= 1
            self._refused = True
            self._mistrust()
            return []
        if any(_DAMAGE.search(line) for _, _, line in lines):
            self._mistrust()
        return frames

    def _watch(self, packet: Any, *, corrupt: bool, key: bool, recovery: int | None) -> None:
        """Follow the packets: loss marks one as corrupt, or the next, when it took the border between the two."""
        pts = packet.pts if packet.pts is not None else self._latest
        self._flagged |= key
        if key and pts < self._latest:  # the sender started again: a keyframe is never shown before what came earlier
            self._clean_from = self._mistrusted_until = self._latest = -(1 << 62)
        if corrupt:
            self._broken, self._recovering, self._recovered = True, None, False
        elif self._broken:
            if recovery is not None and self._recovering is None:
                self._recovering = recovery
            if (key and not self._after_corrupt) or self._recovering == 0:
                self._broken, self._recovering = False, None
                self._clean_from = pts  # a picture shown before it may be built on what was lost
            elif self._recovering is not None:
                self._recovering -= 1
        self._after_corrupt = corrupt
        self._latest = max(self._latest, pts)
        packet.opaque = (self._broken, self._clean_from, corrupt)

    def _mistrust(self) -> None:
        self._failed = True
        self._mistrusted_until = self._latest

    def _passes(self, frame: Any) -> bool:
        pts = frame.pts if frame.pts is not None else self._latest
        broken, clean_from, corrupt = frame.opaque or (False, pts, False)
        if broken and not self._flagged:
            broken, clean_from = self._broken_without_flags(frame, pts, corrupt=corrupt), pts
        if frame.is_corrupt:
            self._failed, self._mistrusted_until = True, pts
        elif self._failed and (frame.key_frame or pts == self._clean_from) and pts > self._mistrusted_until:
            self._failed = False
        return not (broken or pts < clean_from or self._failed)

    def _broken_without_flags(self, frame: Any, pts: int, *, corrupt: bool) -> bool:
        """Whether a picture after a loss is broken, where only the decoder knows which pictures are keyframes."""
        if frame.key_frame and not (corrupt or frame.is_corrupt):
            self._broken, self._recovered = False, True
            self._latest = self._clean_from = pts
        elif corrupt:
            self._broken, self._recovered = True, False
        return not self._recovered or pts < self._clean_from

    def _picture(self, frame: Any) -> Planes | NDArray[np.uint8]:
        aspect = (self._headers or self._context).sample_aspect_ratio
        return picture_of(frame, float(aspect) if aspect else 1.0, self._siting)


_NO_PICTURE = "no frame!"  # parameters or messages in a packet of their own, as some cameras send them
DAMAGED_BLOCK = re.compile(r"error dc|bad vlc|error count: \d")  # of JPEG
_DAMAGE = re.compile(
    "error while decoding|concealing|corrupt|damaged|Could not find ref|Error constructing|Missing reference|"
    "outside the valid range|CABAC_MAX|slice header error|Invalid mb|overread|Error decoding|" + DAMAGED_BLOCK.pattern
)


@contextmanager
def overheard(level: int | None = None) -> Iterator[list[Any]]:
    """Collect what FFmpeg says in this thread, of errors or from ``level`` on."""
    from av import logging as messages

    before = messages.get_level()
    if before is None:
        logging.getLogger("libav").addHandler(logging.NullHandler())
        logging.getLogger("libav").propagate = False
    messages.set_level(level or messages.ERROR)
    try:
        with messages.Capture() as lines:
            yield lines
    finally:
        if level is not None:
            messages.set_level(before)
