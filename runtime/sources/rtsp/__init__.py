"""RTSP without a hold: a picture is decoded when its last packet arrives, and each lost packet is known.

FFmpeg's reader gives a picture out only when the next one begins, hides the sender's clock, and passes loss over.
"""

from __future__ import annotations

from overflight.runtime.sources.rtsp.video import RtspVideo

__all__ = ["RtspVideo"]
