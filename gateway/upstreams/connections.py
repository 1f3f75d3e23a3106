"""The connections to one upstream, and what goes wrong with them.

Rule: one host, that of the configured URL; credentials of the config are sent there, a client's never are.
A request is sent a second time only where the first was not taken (see ``_post``). Knows nothing about
answers beyond their headers.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

import gateway
from gateway.core.decode.failure import RETRY_SOON, USELESS, Place
from gateway.core.errors import GatewayError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.core.modal import AUTH_HEADERS
from gateway.upstreams.client import BadAnswer, Client, Disconnected, Origin, Response
from gateway.upstreams.endpoint import Endpoint
from gateway.upstreams.wire import tapped

STALE_WINDOW = 1.0  # seconds; more than any round trip
_JSON = "application/json"


class Connections:
    """Requests to one upstream."""

    def __init__(self, config: Endpoint, url: str, place: Place) -> None:
        self.url = url
        self._parts = urlsplit(url)
        self._target = target(self._parts)
        self._config = config
        self._place = place
        self._client: Client | None = (
            None  # made at the first call: trusted certificates take a while to load
        )

    @property
    def open(self) -> int:
        """How many there are, idle ones included."""
        return self._client.connections if self._client is not None else 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send a call; the response once its headers are there. Raises ``GatewayError``."""
        try:
            return tapped(await self._post(body, {"content-type": _JSON, **headers}))
        except (OSError, BadAnswer) as exc:
            raise failed(exc, self._place) from None

    async def get(self, url: str, headers: Mapping[str, str]) -> Response:
        """Ask for a result; ``url`` must be one that ``same_host`` gave. Raises ``GatewayError``."""
        try:
            return tapped(await self._ready().request("GET", target(urlsplit(url)), dict(headers)))
        except (OSError, BadAnswer) as exc:
            raise failed(exc, self._place) from None

    def same_host(self, base: str, location: str | None) -> str | None:
        """The URL that ``location`` means at ``base``; None if that is not our host."""
        if not location:
            return None
        try:
            url = urljoin(base, location)
            parts = urlsplit(url)
            same = (parts.scheme, *_address(parts)) == (self._parts.scheme, *_address(self._parts))
        except ValueError:
            return None
        return url if same and "@" not in parts.netloc and _plain(url) else None

    async def _post(self, body: bytes, headers: dict[str, str]) -> Response:
        """Send it, a second time only over a connection that the server had already given up.

        A server that closes an idle connection crosses our request on the wire. It shows as a connection
        that had served before, and that closes without one byte of an answer within a round trip. Then the
        request was never read. A server that read it and died at once looks the same; what that costs is a
        second attempt whose first has no reader, which the contract says ends with its connection. Anything
        later, or on a new connection, may be a generation that runs: it is not repeated here.
        """
        client = self._ready()
        began = time.monotonic()
        try:
            return await client.request("POST", self._target, headers, body)
        except Disconnected as exc:
            late = time.monotonic() - began > STALE_WINDOW
            if late or not (exc.reused and exc.untouched):
                raise
        # The pool may hold more connections that are closing.
        return await client.request("POST", self._target, headers, body, fresh=True)

    async def reachable(self) -> None:
        """Connect and hang up, sending nothing. Raises ``GatewayError``."""
        try:
            await self._ready().probe()
        except OSError as exc:
            raise failed(exc, self._place) from None

    async def aclose(self) -> None:
        if self._client is not None:
            self._client.close()

    def _ready(self) -> Client:
        if self._client is None:
            host, port = _address(self._parts)
            tls = ssl.create_default_context() if self._parts.scheme == "https" else None
            self._client = Client(
                Origin(host, port, tls), _headers(self._config), self._config.connect_timeout
            )
        return self._client


def target(parts: SplitResult) -> str:
    """What a request line names: path and query."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _address(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _plain(url: str) -> bool:
    """Whether a request line can carry it as it stands."""
    return url.isascii() and url.isprintable() and " " not in url


def _headers(config: Endpoint) -> dict[str, str]:
    headers = {
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": f"modal-gateway/{gateway.__version__}",
    }
    if config.api_key is not None:
        headers["authorization"] = f"Bearer {config.api_key.get_secret_value()}"
    for name, secret in zip(AUTH_HEADERS, (config.modal_key, config.modal_secret), strict=True):
        if secret is not None:
            headers[name.lower()] = secret.get_secret_value()
    return headers | {name.lower(): value.get_secret_value() for name, value in config.headers.items()}


def failed(exc: Exception, place: Place) -> GatewayError:
    """Our error for what went wrong before an answer began. The most specific class wins."""
    match exc:
        case Disconnected():
            return UpstreamError(
                "The upstream closed the connection before it answered.",
                code="upstream_disconnected",
                retry="elsewhere",
            )
        case BadAnswer():
            return UpstreamError(
                f"The upstream's answer is not valid HTTP: check {place.at}.url.",
                code="upstream_bad_response",
            )
    error = _unconnected(exc, place)
    error.reached = False
    return error


def _unconnected(exc: Exception, place: Place) -> GatewayError:
    match exc:
        case ssl.SSLError():
            return _untrusted(place)
        case socket.gaierror():
            return _unknown_host(place)
        case TimeoutError():
            return _too_slow(place)
        case _:
            return _unreachable(place)


def _untrusted(place: Place) -> GatewayError:
    return UpstreamError(
        f"No TLS connection that can be trusted to {place.at}.url: check its certificate and host name.",
        code="upstream_tls",
        headers=USELESS,
        retry="elsewhere",
    )


def _unknown_host(place: Place) -> GatewayError:
    return UpstreamUnavailable(
        f"The host of {place.at}.url was not found.", headers=RETRY_SOON, retry="elsewhere"
    )


def _unreachable(place: Place) -> GatewayError:
    return UpstreamUnavailable(f"No connection to {place.at}.url.", headers=RETRY_SOON, retry="elsewhere")


def _too_slow(place: Place) -> GatewayError:
    return UpstreamTimeout(
        f"No connection to the upstream within {place.at}.connect_timeout.",
        code="upstream_connect_timeout",
        retry="elsewhere",
    )
