"""`python -m ledger` is the command `ledger`."""

import sys

from ledger.cli import main

sys.exit(main())
