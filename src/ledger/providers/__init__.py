"""How money comes in: one contract, a file per provider, and the stored connections to them."""
