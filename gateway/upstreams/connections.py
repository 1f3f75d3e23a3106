"""The connections to one upstream, and what goes wrong with them.

Rule: one host, that of the configured URL; credentials of the config are sent there, a client's never are.
No cookies, proxies, redirects or decoding. A request is sent a second time only where the first was not
taken (see ``_post``). Knows nothing about answers beyond their headers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import aiohttp
from yarl import URL

import gateway
from gateway.core.decode.failure import RETRY_SOON, USELESS, Place
from gateway.core.errors import GatewayError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.upstreams.edge import AUTH_HEADERS
from gateway.upstreams.endpoint import Endpoint

KEEP_ALIVE = 30.0  # seconds an idle connection is kept: new ones to a distant edge take three round trips
READ_BUFFER = 64 << 10  # bytes; aiohttp stops reading at twice that, which bounds what a slow client costs
STALE_WINDOW = 1.0  # seconds; more than any round trip

# TCP's own probes: a peer that vanished without a word is noticed after a minute, between events or not.
_PROBES = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))  # seconds, seconds, probes

# Did this task's last request get a connection that had served before?
_reused: ContextVar[bool] = ContextVar("reused", default=False)


class Connections:
    """Requests to one upstream. Made lazily: the loop that runs the first call owns them."""

    def __init__(self, config: Endpoint, url: str, place: Place) -> None:
        self.url = URL(url)
        self._config = config
        self._place = place
        self._pooled: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None  # a new connection for every request

    async def post(self, body: bytes, request_id: str) -> aiohttp.ClientResponse:
        """Send a call; the response once its headers are there. Raises ``GatewayError``."""
        try:
            return await self._post(body, {"Content-Type": "application/json", "X-Request-Id": request_id})
        except (aiohttp.ClientError, OSError) as exc:
            raise failed(exc, self._place) from None

    async def get(self, url: URL, request_id: str) -> aiohttp.ClientResponse:
        """Ask for a result; ``url`` must be of the same host. Raises ``GatewayError``."""
        try:
            return await self._session().get(
                url, headers={"X-Request-Id": request_id}, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as exc:
            raise failed(exc, self._place) from None

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send it, a second time only over a connection that the server had already given up.

        A server that closes an idle connection crosses our request on the wire. It shows as a connection
        that had served before, and that closes without one byte of an answer within a round trip. Then the
        request was never read. A server that read it and died at once looks the same; what that costs is a
        second attempt whose first has no reader, which the contract says ends with its connection. Anything
        later, or on a new connection, may be a generation that runs: it is not repeated here.
        """
        loop = asyncio.get_running_loop()
        _reused.set(False)
        began = loop.time()
        try:
            return await self._session().post(self.url, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError) as exc:
            begun = isinstance(exc, aiohttp.ServerDisconnectedError) and not isinstance(exc.message, str)
            if begun or not _reused.get() or loop.time() - began > STALE_WINDOW:
                raise
        if self._single is None:  # the pool may hold more connections that are closing
            self._single = self._new_session(_Connector(limit=0, force_close=True, socket_factory=_probed))
        return await self._single.post(self.url, data=body, headers=headers, allow_redirects=False)

    async def reachable(self) -> None:
        """Connect and hang up, sending nothing. Raises ``GatewayError``."""
        assert self.url.host is not None
        secure = self.url.scheme == "https"
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                _, writer = await asyncio.open_connection(self.url.host, self.url.port, ssl=secure or None)
        except TimeoutError:
            raise _too_slow(self._place) from None
        except ssl.SSLError:
            raise _untrusted(self._place) from None
        except socket.gaierror:
            raise _unknown_host(self._place) from None
        except OSError:
            raise _unreachable(self._place) from None
        writer.transport.abort()

    async def aclose(self) -> None:
        for session in (self._pooled, self._single):
            if session is not None:
                await session.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._pooled is None:
            self._pooled = self._new_session(
                _Connector(limit=0, keepalive_timeout=KEEP_ALIVE, socket_factory=_probed)
            )
        return self._pooled

    def _new_session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            headers=_headers(self._config),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._config.connect_timeout, ceil_threshold=float("inf")
            ),
        )


class _Connector(aiohttp.TCPConnector):
    """Notes whether a request was given a connection that had served before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._served: WeakSet[Any] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout  # noqa: ASYNC109
    ) -> Any:
        connection = await super().connect(req, traces, timeout)
        _reused.set(connection.protocol in self._served)
        self._served.add(connection.protocol)
        return connection


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


def _probed(address: Any) -> socket.socket:
    """A socket for this ``getaddrinfo`` row, with keep-alive probes where the system has them."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def failed(exc: Exception, place: Place) -> GatewayError:
    """Our error for what aiohttp raised before an answer began. The most specific class wins."""
    match exc:
        case aiohttp.ClientSSLError():
            return _untrusted(place)
        case aiohttp.ClientConnectorDNSError():
            return _unknown_host(place)
        case aiohttp.ClientConnectorError():
            return _unreachable(place)
        case TimeoutError():
            return _too_slow(place)
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return UpstreamError(
                f"The upstream's answer is not valid HTTP: check {place.at}.url.",
                code="upstream_bad_response",
            )
        case _:
            return UpstreamError(
                "The upstream closed the connection before it answered.",
                code="upstream_disconnected",
                retry="elsewhere",
            )


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
