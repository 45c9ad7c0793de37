"""Checking a flight before it begins: everything is opened, one frame is evaluated, and nothing is written."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from overflight.runtime.errors import SourceError
from overflight.runtime.flight.peripherals import open_geotagger
from overflight.runtime.links.address import LinkAddress, require_library
from overflight.runtime.observe import nowhere
from overflight.runtime.redact import redact
from overflight.runtime.stream import Stream

if TYPE_CHECKING:
    from overflight.runtime.flight.run import FlightConfig
    from overflight.runtime.overflight import Overflight

FIRST_FRAME_S = 10.0  # a camera on the network that is switched on answers sooner


def check_flight(overflight: Overflight, where: str, config: FlightConfig) -> list[str]:
    """Return one line for each part of a flight that was found in order.

    The links are not connected: the other side need not be there yet. Raises the part's own error, and SourceError when
    no frame arrives within ten seconds.
    """
    info, header = overflight.engine.info, overflight.bank.header
    lines = [
        f"bundle  {overflight.bundle.directory}: {overflight.bundle.manifest.name}",
        f"engine  {info.target} {info.precision}",
        f"bank    {header.name}: {len(header.labels)} labels",
    ]
    for uri in config.peripherals.links:
        address = LinkAddress.parse(uri)
        require_library(address)
        lines.append(f"link    {address.name}: not connected yet")
    return [*lines, *_first_frame(overflight, where, config)]


def _first_frame(overflight: Overflight, where: str, config: FlightConfig) -> list[str]:
    geotagger = open_geotagger(config.peripherals, where)
    stream = Stream(where, overflight.observer, locate=nowhere if geotagger is None else geotagger.locate)
    timer = threading.Timer(FIRST_FRAME_S, stream.stop)
    timer.start()
    try:
        result = next(iter(stream.results()), None)
        if result is None:
            raise SourceError(
                f"{redact(where)}: no usable frame within {FIRST_FRAME_S:.0f} s ({stream.trouble or 'it ended'}); "
                "check that the camera is on and its address is right"
            )
    finally:
        timer.cancel()
        stream.close()
        if geotagger is not None:
            geotagger.close()
    height, width = result.frame.pixels.shape[:2]
    lines = [f"source  {stream.source.name}: {width} x {height}, {result.observation.label or 'unknown'}"]
    if geotagger is not None:
        known = "no pose yet" if result.observation.pose is None else "pose known"
        lines.append(f"pose    {redact(config.peripherals.pose or '')}: {known}")
    return lines
