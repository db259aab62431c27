"""Who changed what, when: append-only, sealed into a hash chain."""
