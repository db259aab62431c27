"""Every refusal Ledger can give, as an exception that carries its HTTP meaning and a sentence for people.

Rules and actions raise these; `ledger.web.problems` is the only place that turns them into responses.
The statuses follow the published API: a refused body and a broken rule of a published operation are 400.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """One refused field of a body: its path (`items[0].unitPrice`) and what is wrong with it, in words."""

    field: str
    message: str


class LedgerError(Exception):
    """A refusal a person can read: `str(error)` is one sentence that says what is wrong and what to do."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        sentence: str,
        *,
        fields: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s
        self.details: dict[str, str] = dict(details or {})


class BadRequest(LedgerError):
    """The request or its body is malformed, or a rule of the domain refuses it (400)."""

    status = 400
    title = "Bad request"


class RuleBroken(BadRequest):
    """A rule of the domain refuses the change; subclasses name the rule (`InvoiceNotPayable`)."""

    title = "Not allowed in this state"


class Unauthorized(LedgerError):
    """Nobody is proven (401)."""

    status = 401
    title = "Unauthorized"

    def __init__(self, sentence: str = "Unauthorized") -> None:
        super().__init__(sentence)


class Forbidden(LedgerError):
    """A proven caller who may not do this (403). `required` names what would be needed."""

    status = 403
    title = "Forbidden"

    def __init__(self, required: str) -> None:
        super().__init__("Forbidden", details={"required": required})


class NotFound(LedgerError):
    """There is no such thing, or the caller may not know of it (404). `thing` is capitalised: `Invoice`."""

    status = 404
    title = "Not found"

    def __init__(self, thing: str) -> None:
        super().__init__(f"{thing} not found")


class Conflict(LedgerError):
    """Somebody else was faster, or an equal request is still running (409)."""

    status = 409
    title = "Conflict"


class Gone(LedgerError):
    """It existed, and its content was purged (410)."""

    status = 410
    title = "Gone"


class TooLarge(LedgerError):
    """The body is larger than Ledger reads (413)."""

    status = 413
    title = "Request too large"


class IdempotencyKeyReused(LedgerError):
    """An idempotency key came again with another body (422)."""

    status = 422
    title = "Idempotency key reused"


class TooManyRequests(LedgerError):
    """The caller's rate limit is used up (429)."""

    status = 429
    title = "Too many requests"


class CapabilityMissing(LedgerError):
    """No active provider can do this (501)."""

    status = 501
    title = "Not supported"


class ProviderFailed(LedgerError):
    """A provider answered with a fault of its own (502)."""

    status = 502
    title = "Provider failed"


class Unavailable(LedgerError):
    """Something Ledger depends on cannot be asked right now (503)."""

    status = 503
    title = "Temporarily unavailable"


class TookTooLong(LedgerError):
    """The request used up its time (504)."""

    status = 504
    title = "Took too long"
