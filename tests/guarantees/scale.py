"""How large the proofs are. `make test` runs a short form; LEDGER_PROOF_SCALE=10 asks for ten times as much.

What is random follows a seed, which is printed; LEDGER_PROOF_SEED runs the same again. A long form needs more time
for each test as well: `LEDGER_PROOF_SCALE=10 .venv/bin/pytest tests/guarantees --timeout 1200`.
"""

import os
import random
import secrets

SCALE = float(os.environ.get("LEDGER_PROOF_SCALE", "1"))


def scaled(count: int) -> int:
    """So many, times the scale; at least one."""
    return max(1, round(count * SCALE))


def seeded() -> random.Random:
    """A source of randomness whose seed stands in the output of a test that fails."""
    seed = os.environ.get("LEDGER_PROOF_SEED") or secrets.token_hex(4)
    print(f"random with LEDGER_PROOF_SEED={seed}, LEDGER_PROOF_SCALE={SCALE:g}")
    return random.Random(seed)
