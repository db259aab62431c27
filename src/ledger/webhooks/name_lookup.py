"""Resolves host names, with a bound on how many lookups run, and none that keeps the process from ending."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from ledger.webhooks.special_networks import Address

LOOKUPS_AT_ONCE = 32


class NameLookup:
    """Asks the system's resolver. One slow name does not hold up the others."""

    def __init__(self) -> None:
        self._free = LOOKUPS_AT_ONCE

    async def look_up(self, host: str) -> Sequence[Address]:
        """Every address of a name. Raises OSError when it has none, or too many names are being looked up.

        The system's lookup cannot be stopped. Each has a thread of its own that ends with the process, so who waits
        may give up, and the end of the program waits for no name server.
        """
        if self._free <= 0:
            raise OSError("too many names are being looked up; their name servers do not answer")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[Address]] = loop.create_future()

        def finish(outcome: Sequence[Address] | OSError) -> None:
            self._free += 1
            if found.done():
                return
            if isinstance(outcome, OSError):
                found.set_exception(outcome)
            else:
                found.set_result(outcome)

        self._free -= 1
        threading.Thread(
            target=_look_up_in_thread, args=(host, finish, loop), name="look up a name", daemon=True
        ).start()
        return await found


def _look_up_in_thread(
    host: str, finish: Callable[[Sequence[Address] | OSError], None], loop: asyncio.AbstractEventLoop
) -> None:
    outcome: Sequence[Address] | OSError
    try:
        outcome = _addresses_of(host)
    except OSError as failed:
        outcome = failed
    except UnicodeError:
        outcome = socket.gaierror(socket.EAI_NONAME, f"{host} is no name")
    # The loop may be gone by now.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(finish, outcome)


def _addresses_of(host: str) -> Sequence[Address]:
    # Without AI_ADDRCONFIG: what is checked does not depend on which networks this machine has just now.
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses: dict[Address, None] = {}
    for family, _, _, _, place in infos:
        if family in (socket.AF_INET, socket.AF_INET6):
            text, zone = str(place[0]), place[3] if len(place) == 4 else 0
            # The zone of a link-local address comes as a number of its own.
            addresses[ipaddress.ip_address(f"{text}%{zone}" if zone and "%" not in text else text)] = None
    return tuple(addresses)
