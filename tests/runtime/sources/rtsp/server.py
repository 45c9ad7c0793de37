"""A real RTSP server whose pictures carry the time at which they were made. Run by the system's Python, for GStreamer.

usage: server.py PORT FPS KEYFRAME_S B_FRAMES CODEC [USER PASSWORD]; pauses are asked for on standard input
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import gi  # type: ignore[import-not-found, unused-ignore]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found, unused-ignore]  # noqa: E402

WIDTH, HEIGHT, CELL = 640, 360, 16
BITS = 40  # of the monotonic clock in microseconds, in squares along the top


def picture(stamp_us: int, number: int) -> bytes:
    """I420: squares that spell the time, over stripes that move."""
    top = b"".join((b"\xeb" if stamp_us >> bit & 1 else b"\x10") * CELL for bit in range(BITS))
    stripes = bytes((x * 3 + number * 8) % 160 + 40 for x in range(WIDTH))
    chroma = bytes([96 + number % 64]) * (WIDTH * HEIGHT // 4)
    return top * CELL + stripes * (HEIGHT - CELL) + chroma + chroma


class Factory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc, unused-ignore]
    def __init__(self, fps: float, keyframe_s: float, b_frames: int, codec: str) -> None:
        super().__init__()
        every = max(1, round(fps * keyframe_s))
        coder = {
            "h264": f"x264enc tune={'0' if b_frames else 'zerolatency'} bframes={b_frames} b-adapt=false "
            f"rc-lookahead=0 sync-lookahead=0 speed-preset=ultrafast key-int-max={every} bitrate=1500 "
            "! h264parse config-interval=-1 ! rtph264pay",
            "h265": f"x265enc tune=zerolatency speed-preset=ultrafast key-int-max={every} bitrate=1500 "
            "! h265parse config-interval=-1 ! rtph265pay",
            "jpeg": "jpegenc ! rtpjpegpay",
        }[codec]
        self._fps, self._pause_until = fps, 0.0
        rate = f"{round(fps * 1000)}/1000"
        self.set_launch(
            f"( appsrc name=src is-live=true do-timestamp=true format=time block=false "
            f"caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={rate} ! {coder} name=pay0 pt=96 )"
        )
        self.set_shared(True)

    def pause(self, seconds: float) -> None:
        self._pause_until = time.monotonic() + seconds

    def begin(self, media: Any) -> None:
        source = media.get_element().get_by_name("src")
        threading.Thread(target=self._feed, args=(source,), daemon=True).start()

    def _feed(self, source: Any) -> None:
        number, due = 0, time.monotonic()
        while True:
            due = max(due + 1 / self._fps, self._pause_until)
            time.sleep(max(0.0, due - time.monotonic()))
            buffer = Gst.Buffer.new_wrapped(picture(time.monotonic_ns() // 1000, number))
            if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return
            number += 1


def main() -> None:
    port, fps, keyframe_s, b_frames, codec, *credentials = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_service(port)
    factory = Factory(float(fps), float(keyframe_s), int(b_frames), codec)
    factory.connect("media-configure", lambda _, media: factory.begin(media))
    if credentials:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(2)  # digest
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_digest(credentials[0], credentials[1], token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)

    def listen() -> None:
        for line in sys.stdin:
            factory.pause(float(line))

    threading.Thread(target=listen, daemon=True).start()
    GLib.MainLoop().run()


main()
