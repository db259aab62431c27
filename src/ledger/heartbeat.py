"""Tells Lanyard that Ledger lives and what it looks like: at start, on a change of capabilities, every 5 minutes.

Every process runs this loop; a row in the database decides which of them sends, so Lanyard hears it once per
installation, whichever processes live. A failed heartbeat is repeated with growing distance until one is accepted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import structlog

from ledger.clock import Clock
from ledger.database.installation import claim_heartbeat, release_heartbeat, request_heartbeat
from ledger.database.transaction import Database
from ledger.lanyard import LanyardClient
from ledger.web import metrics

log = structlog.get_logger("ledger.heartbeat")

EVERY = timedelta(minutes=5)
POLL_S = 1.0
CLAIM = timedelta(seconds=20)
# Processes that start one after the other are announced together.
STARTS_APART = timedelta(seconds=30)
# The manifest has to arrive within 60 s of Lanyard's return.
RETRY_MAX = timedelta(seconds=30)

ManifestBuilder = Callable[[], Awaitable[Mapping[str, object]]]


class Heartbeat:
    """The loop of one process."""

    def __init__(
        self,
        *,
        database: Database,
        lanyard: LanyardClient,
        clock: Clock,
        app_version: str,
        build_manifest: ManifestBuilder,
    ) -> None:
        self._database = database
        self._lanyard = lanyard
        self._clock = clock
        self._app_version = app_version
        self._build_manifest = build_manifest

    async def run(self) -> None:
        """Runs until it is cancelled. A database that is away is waited for."""
        is_requested = False
        while True:
            try:
                if not is_requested:
                    async with self._database.connection() as connection:
                        await request_heartbeat(connection, now=self._clock.now(), apart=STARTS_APART)
                    is_requested = True
                await self.send_if_due()
            except Exception as error:
                log.warning("heartbeat postponed", reason=type(error).__name__)
            await asyncio.sleep(POLL_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the processes' polls

    async def send_if_due(self) -> bool:
        """Sends the heartbeat when it is due and no other process does. Returns whether Lanyard accepted it."""
        async with self._database.connection() as connection:
            claim = await claim_heartbeat(connection, now=self._clock.now(), for_how_long=CLAIM)
        if claim is None:
            return False
        outcome = await self._lanyard.heartbeat(app_version=self._app_version, manifest=await self._build_manifest())
        now = self._clock.now()
        retry_in = min(timedelta(seconds=2**claim.attempts), RETRY_MAX) if claim.attempts < 10 else RETRY_MAX
        async with self._database.connection() as connection:
            await release_heartbeat(
                connection,
                claim=claim,
                next_at=now + (EVERY if outcome.kind == "accepted" else retry_in),
                accepted_at=now if outcome.kind == "accepted" else None,
                error=None if outcome.kind == "accepted" else outcome.reason,
            )
        metrics.heartbeats.labels("accepted" if outcome.kind == "accepted" else "failed").inc()
        if outcome.kind == "accepted":
            log.info("heartbeat accepted")
        else:
            log.warning("heartbeat failed", reason=outcome.reason, retry_in_s=retry_in.total_seconds())
        return outcome.kind == "accepted"
