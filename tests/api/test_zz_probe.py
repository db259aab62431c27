import pytest
from tests.installation import Installation
@pytest.mark.parametrize("n", range(6))
async def test_x(ledger: Installation, n: int) -> None:
    await ledger.create_invoice()
