"""Takes a request's bytes from the connection, also those that nobody wants.

A connection that is closed with bytes unread is reset, and then the refusal is lost on its way: the sender sees a
broken connection instead of `413` or `401`, and tries again. So what is refused is read to its end, within limits.
"""

import asyncio
from contextlib import suppress

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from ledger.errors import BadRequest
from ledger.web.problems import BODY_MAX_BYTES

# Who sends more than this after a refusal, or takes longer, has to live with the broken connection.
DRAINED_MAX_BYTES = 8 * BODY_MAX_BYTES
DRAIN_TIMEOUT_S = 2.0


async def read_raw_body(request: Request[object, object, State]) -> bytes:
    """The whole body. Raises `RequestEntityTooLarge` (413), and `BadRequest` when it breaks off."""
    try:
        return await request.body()
    except RequestEntityTooLarge:
        await drain(request)
        raise
    except InternalServerException:
        raise BadRequest("The request ended before its body was complete") from None


async def drain(request: Request[object, object, State]) -> None:
    """Reads and forgets what is left of a body that has not been read to its end."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    left = DRAINED_MAX_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while left > 0:
                message = await request.receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message["body"])
