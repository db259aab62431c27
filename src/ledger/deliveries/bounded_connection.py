"""Connections to receivers that take in a bounded number of bytes, whatever the bytes are.

aiohttp bounds a line, a header and how many headers there are, and stops reading when a body is not read. Interim
answers (1xx) and the descriptions of chunks are none of these: without this, a receiver could send them as fast as
they are read, until the time is up, and take the time of all others.
"""

from functools import partial

import aiohttp
from aiohttp.client_proto import ResponseHandler

# More than what is read of a body, with what is on its way when reading stops.
ANSWER_MAX_BYTES = 1024 * 1024
# A connection that has taken in this much is not used again, so the next answer has all of its bound to itself.
_REUSED_UNTIL_BYTES = 1024 * 1024


class AnswerTooLong(aiohttp.ClientError):
    """A receiver sent more than any answer has."""


class BoundedConnector(aiohttp.TCPConnector):
    """aiohttp's connector with such connections. It takes the same arguments; make it in a running event loop."""

    def __init__(self, *, resolver: aiohttp.abc.AbstractResolver, limit: int, keepalive_timeout: float) -> None:
        super().__init__(resolver=resolver, limit=limit, keepalive_timeout=keepalive_timeout)
        # There is no public place for it; the tests of answers without end tell when it moves.
        self._factory = partial(_BoundedHandler, loop=self._loop)  # type: ignore[assignment] # partial is invariant


class _BoundedHandler(ResponseHandler):
    """aiohttp's side of a connection, counting."""

    _received_bytes = 0

    @property
    def should_close(self) -> bool:
        return self._received_bytes > _REUSED_UNTIL_BYTES or super().should_close

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes <= _REUSED_UNTIL_BYTES + ANSWER_MAX_BYTES:
            super().data_received(data)
        elif self.transport is not None:
            self.set_exception(AnswerTooLong())
            self.transport.abort()
