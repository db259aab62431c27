"""A load generator: HTTP/1.1 over connections that are kept, each sending its next request when it has its answer.

It runs in a process of its own (`python -m bench.load`, a `Load` on standard input, a `Measured` on standard output)
and does as little as it can for each answer, because it shares two cores with what it measures.
"""

import asyncio
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import uvloop

# What is left of a run when its time is over: answers that are on their way.
_LAST_ANSWERS_S = 10.0
_LARGEST_ANSWER_BYTES = 4 * 1024 * 1024


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: `requests` in turn, from the first again after the last, over `connections`.

    What is answered during the first `warm_up_s` is checked and not counted.
    """

    port: int
    requests: Sequence[bytes]
    connections: int
    expected_status: int
    warm_up_s: float
    measured_s: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `errors` counts everything but the expected status; `cpu_share` is the generator's own."""

    answers: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    errors: Mapping[str, int]
    cpu_share: float


class LoadFailed(Exception):
    """The load generator could not do its work, or answers came that were not expected."""


def http_request(
    method: str, path: str, *, port: int, authorization: str | None = None, body: object | None = None
) -> bytes:
    """The bytes of a request; `body` is sent as JSON."""
    lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{port}"]
    if authorization is not None:
        lines.append(f"authorization: {authorization}")
    content = b"" if body is None else msgspec.json.encode(body)
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def run_load(load: Load) -> Measured:
    """Runs the generator in a process of its own. Raises `LoadFailed` when any answer was not as expected."""
    limit_s = load.warm_up_s + load.measured_s + _LAST_ANSWERS_S + 20
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=msgspec.msgpack.encode(load),
        stdout=subprocess.PIPE,
        timeout=limit_s,
        check=False,
    )
    if done.returncode != 0:
        raise LoadFailed(f"the load generator ended with code {done.returncode}")
    measured = msgspec.msgpack.decode(done.stdout, type=Measured)
    if measured.errors or not measured.answers:
        raise LoadFailed(f"unexpected answers: {dict(measured.errors)} beside {measured.answers} expected ones")
    return measured


class _Run:
    """What the connections of one run share."""

    def __init__(self, load: Load) -> None:
        self.requests = itertools.cycle(load.requests)
        self.expected = str(load.expected_status).encode()
        self.latencies_ns: list[int] = []
        self.errors: Counter[str] = Counter()
        self.is_counting = False
        self.is_over = False


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._sent_at_ns = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._sent_at_ns = time.perf_counter_ns()
        self._transport.write(next(self._run.requests))

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = _end_of_answer(data)
        if end is None or len(data) < end:
            self._buffer = data
            if len(data) > _LARGEST_ANSWER_BYTES:
                self._fail("answer too large")
            return
        self._buffer = b""
        run = self._run
        if len(data) > end:
            self._fail("more than one answer")
            return
        if data[9:12] != run.expected:
            run.errors[data[9:12].decode("ascii", "replace")] += 1
        elif run.is_counting:
            run.latencies_ns.append(time.perf_counter_ns() - self._sent_at_ns)
        if run.is_over:
            self._transport.close()
        else:
            self._send()

    def _fail(self, what: str) -> None:
        self._run.errors[what] += 1
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.is_over:
            self._run.errors["connection lost"] += 1
        if not self.closed.done():
            self.closed.set_result(None)


def _end_of_answer(data: bytes) -> int | None:
    """Where the answer ends, None as long as its head is not complete. Ledger's answers always say their length."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    at = data.find(b"content-length: ", 0, head_end)
    if at < 0:
        return head_end + 4
    return head_end + 4 + int(data[at + 16 : data.find(b"\r", at)])


async def _generate(load: Load) -> Measured:
    loop = asyncio.get_running_loop()
    run = _Run(load)
    opening = [
        loop.create_connection(lambda: _Connection(run), "127.0.0.1", load.port) for _ in range(load.connections)
    ]
    connections = [protocol for _, protocol in await asyncio.gather(*opening)]
    await asyncio.sleep(load.warm_up_s)
    run.is_counting = True
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    await asyncio.sleep(load.measured_s)
    run.is_counting = False
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    run.is_over = True
    _, late = await asyncio.wait([each.closed for each in connections], timeout=_LAST_ANSWERS_S)
    if late:
        run.errors["no answer"] += len(late)
    latencies_ns = sorted(run.latencies_ns)
    count = len(latencies_ns)
    return Measured(
        answers=count,
        rate_per_s=count / took_s,
        p50_ms=latencies_ns[count // 2] / 1e6 if count else 0.0,
        p99_ms=latencies_ns[count * 99 // 100] / 1e6 if count else 0.0,
        errors=dict(run.errors),
        cpu_share=cpu_s / took_s,
    )


def main() -> None:
    load = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Load)
    measured = uvloop.run(_generate(load))
    sys.stdout.buffer.write(msgspec.msgpack.encode(measured))


if __name__ == "__main__":
    main()
