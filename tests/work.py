"""Does the worker's work in a test: what is queued now, or what the reconciler would look at."""

from ledger.jobs import JOBS, reconcile
from tests.installation import Installation


async def work(ledger: Installation, *, rounds: int = 5) -> int:
    """Runs queued jobs whose time has come, and those they leave behind; returns how many."""
    done = 0
    for _ in range(rounds):
        rows = await ledger.sql(
            "delete from pgqueuer where status = 'queued' and execute_after <= now() returning entrypoint, payload"
        )
        if not rows:
            return done
        for row in rows:
            await JOBS[row["entrypoint"]](ledger.services, (row["payload"] or b"").decode())
            done += 1
    return done


async def sweep(ledger: Installation) -> int:
    """Runs the reconciler's sweep once."""
    return await reconcile(ledger.services)
