"""Where a command listens."""

from __future__ import annotations

import errno
import ipaddress
import socket

from gateway.cli.show import CommandError
from gateway.http.server import listen


def bind(host: str, port: int, otherwise: str) -> socket.socket:
    """The socket to listen on. Raises ``CommandError``, which says what to do if the port is in use."""
    try:
        return listen(host, port)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise CommandError(f"port {port} of {host} is in use: {otherwise}") from None
        raise CommandError(f"cannot listen at --host {host} --port {port}: {exc.strerror or exc}") from None


def is_loopback(address: str) -> bool:
    """Is this numeric address reachable from this machine alone?"""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
