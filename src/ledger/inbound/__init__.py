"""Events that providers send: verified, saved once, applied once by a job."""
