"""The listening socket: opened once by the supervisor, shared by the API processes that it starts.

That way a port in use is told at once, and connections that arrive while a crashed process is replaced wait in the
socket's queue instead of being refused.
"""

import ctypes
import errno
import socket
import struct
import time
from contextlib import suppress

from ledger.settings import SettingsError

# Connections that wait to be accepted; the kernel may allow fewer (`net.core.somaxconn`).
BACKLOG = 1024
# A Ledger that was killed needs a moment to let go of the port.
_BUSY_TIMEOUT_S = 1.5
_BUSY_POLL_S = 0.1

_SO_ATTACH_FILTER = 26
_SYN, _ACK = 0x02, 0x10
# A classic BPF program, which sees a TCP packet from its header on: a packet that opens a connection (SYN without ACK,
# in the flags at offset 13) is dropped, all others pass.
_REFUSE_OPENING = (
    (0x30, 0, 0, 13),  # load the byte at 13
    (0x54, 0, 0, _SYN | _ACK),  # keep SYN and ACK of it
    (0x15, 0, 1, _SYN),  # only SYN: go on; else skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


def open_listener(host: str, port: int) -> socket.socket:
    """Opens the socket. Raises `SettingsError`, naming HOST or PORT, when that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise SettingsError(f"HOST {host} is not the address or name of a machine.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: small answers are sent at once.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _bind(listener, address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(_sentence(error, host, port)) from None
    return listener


def refuse_connections(listener: socket.socket) -> None:
    """Lets no new connection in, while those already made can still be accepted and served.

    Closing the socket would reset the ones that wait to be accepted. On Linux a filter keeps new ones from being made:
    their clients try again after a second, and by then are refused or reach the next Ledger. Elsewhere nothing
    happens here, and new connections are served until the processes stop.
    """
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _REFUSE_OPENING)
    memory = ctypes.create_string_buffer(program)
    described = struct.pack("HP", len(_REFUSE_OPENING), ctypes.addressof(memory))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def _bind(listener: socket.socket, address: tuple[object, ...]) -> None:
    deadline_s = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline_s:
                raise
            time.sleep(_BUSY_POLL_S)
        else:
            return


def _sentence(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"PORT {port} is in use on {host}: stop the program that uses it, or set PORT to another."
    if error.errno == errno.EACCES:
        return f"PORT {port} may not be used by this account: set PORT to one above 1023."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"HOST {host} is not an address of this machine: use 127.0.0.1, or 0.0.0.0 for all of them."
    return f"HOST {host} and PORT {port} cannot be listened on ({error.strerror})."
