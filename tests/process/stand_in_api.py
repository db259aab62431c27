"""An API process with an application of its own instead of Ledger's. Run as the supervisor runs `ledger serve`."""

import argparse
import asyncio
import os
import socket
import sys
from typing import Any
from urllib.parse import parse_qs

from litestar.types import Receive, Scope, Send

from ledger.serve import serve_app
from ledger.supervised import run_supervised


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with its process id, after `?after=<seconds>`; `?crash=1` ends the process on the spot."""
    message: Any
    if str(scope["type"]) == "lifespan":
        for name in ("startup", "shutdown"):
            message = await receive()
            assert message["type"] == f"lifespan.{name}"
            sys.stdout.write(f"{name} {os.getpid()}\n")
            sys.stdout.flush()
            message = {"type": f"lifespan.{name}.complete"}
            await send(message)
        return
    query = parse_qs(scope["query_string"].decode())
    if "crash" in query:
        os._exit(7)
    await asyncio.sleep(float(query.get("after", ["0"])[0]))
    body = str(os.getpid()).encode()
    message = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", str(len(body)).encode())],
    }
    await send(message)
    message = {"type": "http.response.body", "body": body}
    await send(message)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--listener", type=int)
    parser.add_argument("--lifeline", type=int)
    parsed = parser.parse_args()
    listener = socket.socket(fileno=parsed.listener)
    sys.exit(run_supervised(lambda stop: serve_app(app, listener, stop), lifeline=parsed.lifeline))
