"""Link addresses: what can be written after ``--link``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import msgspec

from overflight.runtime.errors import UsageError
from overflight.runtime.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.links.message import Link
    from overflight.runtime.pose.autopilot import Autopilot

SCHEMES = "mqtt://, mqtts://, cot+udp://, cot+tcp://, http://, https://, mavlink:DEVICE, ros2://"
_OPTIONS = {"rate", "stale", "type"}


class LinkAddress(msgspec.Struct, frozen=True):
    """A link's address without its options. ``name`` is what it is called everywhere, without credentials.

    ``rate_bps`` makes it a thin link: at most that many bytes a second, short messages, overtaken changes left out.
    ``stale_s`` and ``cot_type`` are for Cursor on Target.
    """

    uri: str
    name: str
    scheme: str
    rate_bps: float | None = None
    stale_s: float = 600.0
    cot_type: str = "a-u-G"

    @classmethod
    def parse(cls, text: str) -> LinkAddress:
        """Read an address; options follow a ``#``, as in ``mqtt://user:password@host/prefix#rate=1000``.

        ``mqtt://[user:password@]host[:port][/prefix]`` (``mqtts`` with TLS), ``cot+udp://239.2.3.1:6969``,
        ``cot+tcp://host:8087`` (``#stale=600&type=a-u-G``), ``https://host/path`` for a webhook,
        ``mavlink:udpin:0.0.0.0:14550``, ``ros2://namespace``. Raises UsageError.
        """
        uri, _, fragment = text.partition("#")
        scheme = uri.partition(":")[0].lower()
        shown = redact(uri)
        try:
            parts = urlsplit(uri)
            complete = bool(parts.hostname) and (parts.port is not None or not scheme.startswith("cot+"))
            options = dict(parse_qsl(fragment, keep_blank_values=True, strict_parsing=bool(fragment)))
        except ValueError as error:
            raise UsageError(f"--link {shown}: {error}; expected one of {SCHEMES}") from error
        match scheme:
            case "mqtt" | "mqtts" | "cot+udp" | "cot+tcp" | "http" | "https":
                if not complete:
                    raise UsageError(f"--link {shown}: no host, or no port; expected {scheme}://HOST:PORT")
            case "mavlink" | "ros2":
                pass
            case _:
                raise UsageError(f"--link {shown}: expected one of {SCHEMES}")
        if unknown := set(options) - _OPTIONS:
            raise UsageError(f"--link {shown}: option {', '.join(sorted(unknown))}; expected rate, stale or type")
        return cls(
            uri,
            shown.partition("?")[0],
            scheme,
            _positive(shown, "rate", options["rate"]) if "rate" in options else None,
            _positive(shown, "stale", options.get("stale", "600")),
            options.get("type", "a-u-G"),
        )


def open_link(
    address: LinkAddress, shared: Autopilot | None, on_bank: Callable[[bytes], str] | None
) -> tuple[Link, Autopilot | None]:
    """Make the link of an address, and name the autopilot it speaks to, if any. Raises MissingError."""
    match address.scheme:
        case "mqtt" | "mqtts":
            from overflight.runtime.links.mqtt import MqttLink

            return MqttLink(address.uri, on_bank), None
        case "cot+udp" | "cot+tcp":
            from overflight.runtime.links.cot import CotLink

            return CotLink(address.uri, address.stale_s, address.cot_type), None
        case "http" | "https":
            from overflight.runtime.links.webhook import WebhookLink

            return WebhookLink(address.uri), None
        case "mavlink":
            from overflight.runtime.links.mavlink import MavlinkLink
            from overflight.runtime.pose.autopilot import Address, Autopilot

            wanted = Address.parse(address.uri)
            same = shared is not None and shared.address.device == wanted.device
            vehicle = shared if shared is not None and same else Autopilot(wanted)
            return MavlinkLink(vehicle), vehicle
        case _:
            from overflight.runtime.links.ros2 import Ros2Link

            return Ros2Link(urlsplit(address.uri).netloc), None


def _positive(shown: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--link {shown}: {name}={text}; expected a number above 0")
    return value
