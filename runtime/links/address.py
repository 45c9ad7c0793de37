"""Link addresses: what can be written after ``--link``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import msgspec

from overflight.runtime.errors import MissingError, UsageError, missing_extra
from overflight.runtime.links.tls import NO_FILES, TlsFiles
from overflight.runtime.redact import quote_credentials, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.links.message import Link
    from overflight.runtime.pose.autopilot import Autopilot

SCHEMES = "mqtt://, mqtts://, cot+udp://, cot+tcp://, cot+tls://, http://, https://, mavlink:DEVICE, ros2://"
_TLS = ("ca", "cert", "key")
_OPTIONS = {"rate", "stale", "type", "accept", *_TLS}
_SECURE = ("mqtts", "cot+tls", "https")


class LinkAddress(msgspec.Struct, frozen=True):
    """A link's address without its options. ``name`` is what it is called everywhere, without credentials.

    ``rate_bps`` makes it a thin link: at most that many bytes a second, short messages, overtaken changes left out.
    ``stale_s`` and ``cot_type`` are for Cursor on Target, ``tls`` for what is encrypted. ``accepts_banks`` makes an
    MQTT link listen for label banks.
    """

    uri: str
    name: str
    scheme: str
    rate_bps: float | None = None
    stale_s: float = 600.0
    cot_type: str = "a-u-G"
    tls: TlsFiles = NO_FILES
    accepts_banks: bool = False

    @classmethod
    def parse(cls, text: str) -> LinkAddress:
        """Read an address; options follow a ``#``, as in ``mqtt://user:password@host/prefix#rate=1000``.

        ``mqtt://[user:password@]host[:port][/prefix]`` (``mqtts`` with TLS, ``#accept=banks`` to take label banks),
        ``cot+udp://239.2.3.1:6969``, ``cot+tcp://host:8087`` (``cot+tls`` with TLS, ``#stale=600&type=a-u-G``),
        ``https://host/path`` for a webhook, ``mavlink:udpin:0.0.0.0:14550``, ``ros2://namespace``. With TLS,
        ``#ca=FILE&cert=FILE&key=FILE`` name PEM files. Raises UsageError, also for a file that cannot be read.
        """
        text = quote_credentials(text)
        uri, _, fragment = text.partition("#")
        scheme = uri.partition(":")[0].lower()
        shown = redact(uri)
        try:
            parts = urlsplit(uri)
            complete = bool(parts.hostname) and (parts.port is not None or not scheme.startswith("cot+"))
            options = dict(parse_qsl(fragment, keep_blank_values=True, strict_parsing=bool(fragment)))
        except ValueError as error:
            # The error quotes what it could not read, which may be a password that was not encoded.
            reason = "Port out of range" if "range" in str(error) else "not an address with options as NAME=VALUE"
            raise UsageError(f"--link {shown}: {reason}; expected one of {SCHEMES}") from error
        match scheme:
            case "mqtt" | "mqtts" | "cot+udp" | "cot+tcp" | "cot+tls" | "http" | "https":
                if not complete:
                    raise UsageError(f"--link {shown}: no host, or no port; expected {scheme}://HOST:PORT")
            case "mavlink" | "ros2":
                pass
            case _:
                raise UsageError(f"--link {shown}: expected one of {SCHEMES}")
        if unknown := set(options) - _OPTIONS:
            expected = ", ".join(sorted(_OPTIONS))
            raise UsageError(f"--link {shown}: option {', '.join(sorted(unknown))}; expected one of {expected}")
        try:
            tls = _tls(scheme, options)
        except UsageError as error:
            raise UsageError(f"--link {shown}: {error}") from error
        return cls(
            uri,
            shown.partition("?")[0],
            scheme,
            _positive(shown, "rate", options["rate"]) if "rate" in options else None,
            _positive(shown, "stale", options.get("stale", "600")),
            options.get("type", "a-u-G"),
            tls,
            _accepts_banks(shown, scheme, options),
        )


def open_link(
    address: LinkAddress, shared: Autopilot | None, on_bank: Callable[[bytes], str] | None
) -> tuple[Link, Autopilot | None]:
    """Make the link of an address, and name the autopilot it speaks to, if any. Raises MissingError."""
    match address.scheme:
        case "mqtt" | "mqtts":
            from overflight.runtime.links.mqtt import MqttLink

            return MqttLink(address.uri, on_bank if address.accepts_banks else None, address.tls), None
        case "cot+udp" | "cot+tcp" | "cot+tls":
            from overflight.runtime.links.cot import CotLink

            return CotLink(address.uri, address.stale_s, address.cot_type, address.tls), None
        case "http" | "https":
            from overflight.runtime.links.webhook import WebhookLink

            return WebhookLink(address.uri, address.tls), None
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


def require_library(address: LinkAddress) -> None:
    """Raise MissingError where the library of a link is not installed; connects to nothing."""
    match address.scheme:
        case "mqtt" | "mqtts" if find_spec("paho") is None:
            raise missing_extra("paho-mqtt", "mqtt")
        case "mavlink" if find_spec("pymavlink") is None:
            raise missing_extra("pymavlink", "mavlink")
        case "ros2" if find_spec("rclpy") is None:
            raise MissingError(f"--link {address.name}: rclpy is not installed; source ROS 2's setup.bash first")


def _tls(scheme: str, options: dict[str, str]) -> TlsFiles:
    """Read the TLS options, and the files too: before the flight a mistake can still be mended."""
    given = {name: options[name] for name in _TLS if name in options}
    files = TlsFiles(**given)
    if given and scheme not in _SECURE:
        raise UsageError(f"option {', '.join(given)} needs TLS; expected one of {', '.join(_SECURE)}")
    if given:
        files.context()
    return files


def _accepts_banks(shown: str, scheme: str, options: dict[str, str]) -> bool:
    if "accept" not in options:
        return False
    if options["accept"] != "banks" or scheme not in {"mqtt", "mqtts"}:
        raise UsageError(f"--link {shown}: accept={options['accept']}; expected accept=banks, on an MQTT link")
    return True


def _positive(shown: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--link {shown}: {name}={text}; expected a number above 0")
    return value
