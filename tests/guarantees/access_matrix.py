"""Who may call what: a row for every operation, a column for every kind of caller.

The statuses are those of a request that is right in everything but its caller, on a fresh invoice that `creator`
made for `owner`. 400 and 501 in a caller's column mean: let in, and then refused by a rule (each is explained).
"""

from typing import NamedTuple

from tests.api.heard_events import add_event
from tests.api.made_mails import add_mail
from tests.api.subscribed import GOLD, add_subscription, ensure_gold
from tests.installation import USER, Installation

# Granted more than its own invoices before each cell of the operations on grants; nobody in the table is it.
GRANTED = "svc-granted-0000000001"
# Billed before each cell of the operations on one person's data, so that Ledger holds something about them.
ERASED = "user-erased-0000000001"
CALLERS = ("anonymous", "owner", "other user", "staff", "creator", "other service")

#                                                anonymous
#                                                    owner
#                                                        other user
#                                                            staff
#                                                                creator
#                                                                    other service
_TABLE = """
    GET    /api/invoices                         401 403 403 200 403 403
    POST   /api/invoices                         401 403 403 201 201 201
    POST   /api/invoices/batch                   401 403 403 201 201 201
    GET    /api/invoices/{id}                    401 403 403 200 403 403
    GET    /api/invoices/{id}/items              401 403 403 200 403 403
    GET    /api/invoices/{id}/status             401 403 403 200 200 404
    GET    /api/invoices/{id}/actions            401 403 403 200 403 403
    POST   /api/invoices/{id}/mark-paid          401 403 403 200 200 404
    POST   /api/invoices/{id}/cancel             401 403 403 200 403 403
    POST   /api/invoices/{id}/refund             401 403 403 400 403 403  # the invoice is not paid
    GET    /api/my/invoices                      401 200 200 200 403 403
    GET    /api/my/invoices/{id}                 401 200 404 404 403 403
    GET    /api/my/invoices/{id}/items           401 200 404 404 403 403
    GET    /api/my/invoices/{id}/actions         401 200 404 404 403 403
    POST   /api/my/invoices/{id}/pay             401 501 404 404 403 403  # no payment provider
    GET    /api/invoices/{id}/refund/form        401 403 403 200 403 403
    GET    /api/invoices/{id}/epc-qr.png         401 403 403 404 403 403  # no provider that takes transfers
    GET    /api/invoices/{id}/epc-qr.svg         401 403 403 404 403 403  # the same
    GET    /api/my/invoices/{id}/epc-qr.png      401 404 404 404 403 403  # the same
    GET    /api/my/invoices/{id}/epc-qr.svg      401 404 404 404 403 403  # the same
    GET    /api/providers                        401 403 403 200 403 403
    GET    /api/providers/form                   401 403 403 200 403 403
    POST   /api/providers                        401 403 403 201 403 403
    GET    /api/providers/{id}                   401 403 403 200 403 403
    GET    /api/providers/{id}/settings          401 403 403 200 403 403
    PUT    /api/providers/{id}                   401 403 403 200 403 403
    GET    /api/providers/{id}/actions           401 403 403 200 403 403
    POST   /api/providers/{id}/activate          401 403 403 200 403 403
    POST   /api/providers/{id}/deactivate        401 403 403 200 403 403
    POST   /api/providers/{id}/test              401 403 403 200 403 403
    GET    /api/products                         401 403 403 200 403 403
    GET    /api/products/form                    401 403 403 200 403 403
    POST   /api/products                         401 403 403 201 403 403
    GET    /api/products/{id}                    401 403 403 200 403 403
    GET    /api/products/{id}/form               401 403 403 200 403 403
    PUT    /api/products/{id}                    401 403 403 200 403 403
    GET    /api/products/{id}/actions            401 403 403 200 403 403
    POST   /api/products/{id}/toggle             401 403 403 200 403 403
    GET    /api/subscriptions                    401 403 403 200 403 403
    GET    /api/subscriptions/{id}               401 403 403 200 403 403
    GET    /api/subscriptions/{id}/actions       401 403 403 200 403 403
    POST   /api/subscriptions/{id}/cancel        401 403 403 400 403 403  # it has ended
    POST   /api/subscriptions/{id}/reactivate    401 403 403 400 403 403  # the same
    POST   /api/subscriptions/{id}/change        401 403 403 400 403 403  # the same
    POST   /api/subscriptions/{id}/change/preview 401 403 403 400 403 403  # the same
    GET    /api/subscriptions/{id}/change/form   401 403 403 200 403 403
    GET    /api/subscriptions/{id}/invoices      401 403 403 200 403 403
    GET    /api/subscriptions/{id}/changes       401 403 403 200 403 403
    POST   /api/my/subscribe                     401 501 501 501 403 403  # no provider that keeps subscriptions
    GET    /api/my/subscribe/form                401 200 200 200 403 403
    GET    /api/my/subscriptions                 401 200 200 200 403 403
    GET    /api/my/subscriptions/{id}            401 200 404 404 403 403
    GET    /api/my/subscriptions/{id}/actions    401 200 404 404 403 403
    POST   /api/my/subscriptions/{id}/cancel     401 400 404 404 403 403  # it has ended
    POST   /api/my/subscriptions/{id}/reactivate 401 400 404 404 403 403  # the same
    POST   /api/my/subscriptions/{id}/change     401 400 404 404 403 403  # the same
    POST   /api/my/subscriptions/{id}/change/preview 401 400 404 404 403 403  # the same
    GET    /api/my/subscriptions/{id}/change/form 401 200 404 404 403 403
    GET    /api/my/subscriptions/{id}/invoices   401 200 404 404 403 403
    GET    /api/stripe-events                    401 403 403 200 403 403
    GET    /api/stripe-events/{id}               401 403 403 200 403 403
    GET    /api/stripe-events/{id}/actions       401 403 403 200 403 403
    POST   /api/stripe-events/{id}/retry         401 403 403 200 403 403
    GET    /api/webhooks/subscribers             401 403 403 200 403 403
    GET    /api/webhooks/subscribers/form        401 403 403 200 403 403
    POST   /api/webhooks/subscribers             401 403 403 201 403 403
    GET    /api/webhooks/subscribers/{id}        401 403 403 200 403 403
    PUT    /api/webhooks/subscribers/{id}        401 403 403 200 403 403
    DELETE /api/webhooks/subscribers/{id}        401 403 403 200 403 403
    GET    /api/webhooks/subscribers/{id}/form   401 403 403 200 403 403
    GET    /api/webhooks/subscribers/{id}/actions 401 403 403 200 403 403
    POST   /api/webhooks/subscribers/{id}/toggle 401 403 403 200 403 403
    POST   /api/webhooks/subscribers/{id}/rotate-secret 401 403 403 200 403 403
    GET    /api/webhooks/subscribers/{id}/replay/form 401 403 403 200 403 403
    POST   /api/webhooks/subscribers/{id}/replay 401 403 403 200 403 403
    POST   /api/webhooks/subscribers/{id}/test   401 403 403 200 403 403
    GET    /api/webhooks/deliveries              401 403 403 200 403 403
    GET    /api/webhooks/deliveries/{id}         401 403 403 200 403 403
    GET    /api/webhooks/deliveries/{id}/attempts 401 403 403 200 403 403
    GET    /api/webhooks/deliveries/{id}/actions 401 403 403 200 403 403
    POST   /api/webhooks/deliveries/{id}/replay  401 403 403 200 403 403
    POST   /api/webhooks/stripe                  400 400 400 400 400 400  # nothing of it is signed
    POST   /api/webhooks/stripe/{id}             404 404 404 404 404 404  # no Stripe account has this id
    GET    /api/overview/stats                   401 403 403 200 403 403
    GET    /api/payments                         401 403 403 200 403 403
    GET    /api/audit                            401 403 403 200 403 403
    GET    /api/audit/verify                     401 403 403 200 403 403
    GET    /api/settings                         401 403 403 200 403 403
    GET    /api/settings/form                    401 403 403 200 403 403
    PUT    /api/settings                         401 403 403 200 403 403
    GET    /api/settings/mail                    401 403 403 200 403 403
    GET    /api/settings/actions                 401 403 403 200 403 403
    POST   /api/settings/test-mail               401 403 403 400 403 403  # no mail server
    GET    /api/mails                            401 403 403 200 403 403
    POST   /api/mails/{id}/send                  401 403 403 200 403 403
    GET    /api/service-access                   401 403 403 200 403 403
    GET    /api/service-access/form              401 403 403 200 403 403
    POST   /api/service-access                   401 403 403 200 403 403
    DELETE /api/service-access/{id}              401 403 403 200 403 403
    GET    /api/jobs                             401 403 403 200 403 403
    GET    /api/jobs/runs                        401 403 403 200 403 403
    GET    /api/jobs/stats                       401 403 403 200 403 403
    GET    /api/privacy                          401 403 403 200 403 403
    GET    /api/privacy/schedule                 401 403 403 200 403 403
    GET    /api/privacy/person/form              401 403 403 200 403 403
    POST   /api/privacy/person                   401 403 403 200 403 403
    GET    /api/privacy/users/{id}               401 403 403 200 403 403
    GET    /api/privacy/users/{id}/actions       401 403 403 200 403 403
    GET    /api/privacy/users/{id}/export        401 403 403 200 403 403
    POST   /api/privacy/users/{id}/erase         401 403 403 200 403 403
    GET    /api/health                           200 200 200 200 200 200
    GET    /api/ready                            200 200 200 200 200 200
    GET    /api/openapi                          200 200 200 200 200 200
"""

_INVOICE = {"userId": USER, "items": [{"description": "Membership", "unitPrice": 5000}]}
_PRODUCT = {"name": "Ticket", "price": "5000", "type": "one-time"}
_SUBSCRIBER = {"name": "Shop", "url": "https://93.184.216.34/hooks"}
_BODIES: dict[str, object] = {
    "POST /api/invoices": _INVOICE,
    "POST /api/invoices/batch": {"invoices": [_INVOICE, _INVOICE]},
    "POST /api/invoices/{id}/mark-paid": {"method": "bank_transfer"},
    "PUT /api/settings": {"taxLabel": "VAT"},
    "POST /api/providers": {"type": "manual", "name": "Cash box"},
    "PUT /api/providers/{id}": {"name": "Cash desk"},
    "POST /api/products": _PRODUCT,
    "PUT /api/products/{id}": {"name": "Day ticket"},
    "POST /api/subscriptions/{id}/change": {"productId": GOLD},
    "POST /api/subscriptions/{id}/change/preview": {"productId": GOLD},
    "POST /api/my/subscriptions/{id}/change": {"productId": GOLD},
    "POST /api/my/subscriptions/{id}/change/preview": {"productId": GOLD},
    "POST /api/my/subscribe": {"productId": GOLD},
    "POST /api/webhooks/subscribers": _SUBSCRIBER,
    "PUT /api/webhooks/subscribers/{id}": {"name": "Shop in town"},
    "POST /api/webhooks/subscribers/{id}/replay": {"from": "2026-03-14"},
    "POST /api/privacy/person": {"userId": ERASED},
    "POST /api/service-access": {"serviceId": GRANTED, "access": "manage"},
}


class Row(NamedTuple):
    """One operation and the status each caller gets, in the order of `CALLERS`."""

    method: str
    path: str
    statuses: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def body(self) -> object:
        """A body that is right, or None where none is read."""
        return _BODIES.get(self.name)

    @property
    def is_public(self) -> bool:
        return self.statuses[0] != 401

    def status_of(self, caller: str) -> int:
        return self.statuses[CALLERS.index(caller)]


def _read(line: str) -> Row:
    method, path, *statuses = line.partition("#")[0].split()
    return Row(method, path, tuple(map(int, statuses)))


MATRIX = [_read(line) for line in _TABLE.strip().splitlines()]


async def path_for(row: Row, ledger: Installation) -> str:
    """The row's path with the id of something fresh that exists."""
    if "/subscri" in row.path:
        await ensure_gold(ledger)
    if row.path.startswith("/api/privacy/"):
        await ledger.create_invoice(userId=ERASED)
        return row.path.replace("{id}", ERASED)
    if "{id}" not in row.path:
        return row.path
    if "/subscriptions/" in row.path:
        return row.path.replace("{id}", await add_subscription(ledger, status="cancelled"))
    if row.path.startswith("/api/service-access"):
        granted = await ledger.staff.post("/api/service-access", {"serviceId": GRANTED, "access": "read"})
        assert granted.status == 200, granted.content
        return row.path.replace("{id}", GRANTED)
    if row.path.startswith("/api/providers"):
        # One serves all rows: there is room for a limited number of them.
        rows = (await ledger.staff.get("/api/providers")).body["rows"]
        if not rows:
            rows = [(await ledger.staff.post("/api/providers", {"type": "manual", "name": "Cash box"})).body]
        provider_id: str = rows[0]["id"]
        filled = await ledger.staff.put(f"/api/providers/{provider_id}", {"paymentMethod": "cash"})
        assert filled.status == 200, filled.content
        return row.path.replace("{id}", provider_id)
    if "/replay" in row.path or row.path.endswith("/test") or row.path.startswith("/api/webhooks/deliveries"):
        return row.path.replace("{id}", await _delivery_or_subscriber(row, ledger))
    if row.path.startswith("/api/webhooks/subscribers"):
        # One serves all rows but the one that deletes it.
        listed = (await ledger.staff.get("/api/webhooks/subscribers?limit=1")).body["rows"]
        if not listed or row.method == "DELETE":
            listed = [(await ledger.staff.post("/api/webhooks/subscribers", _SUBSCRIBER)).body]
        return row.path.replace("{id}", listed[0]["id"])
    if row.path.startswith("/api/mails"):
        return row.path.replace("{id}", await add_mail(ledger))
    if row.path.startswith("/api/stripe-events"):
        return row.path.replace("{id}", await add_event(ledger))
    if row.path.startswith("/api/products"):
        product = await ledger.staff.post("/api/products", _PRODUCT)
        assert product.status == 201, product.content
        return row.path.replace("{id}", product.body["id"])
    created = await ledger.create_invoice()
    return row.path.replace("{id}", created.body["id"])


async def _delivery_or_subscriber(row: Row, ledger: Installation) -> str:
    """A subscriber that is active, since others toggle theirs, or a delivery to it."""
    listed = (await ledger.staff.get("/api/webhooks/subscribers")).body["rows"]
    active: list[str] = [each["id"] for each in listed if each["status"] != "Disabled"]
    if not active:
        active = [(await ledger.staff.post("/api/webhooks/subscribers", _SUBSCRIBER)).body["id"]]
    if "/deliveries/" not in row.path:
        return active[0]
    sent = await ledger.staff.post(f"/api/webhooks/subscribers/{active[0]}/test")
    assert sent.status == 200, sent.content
    delivery_id: str = sent.body["id"]
    return delivery_id
