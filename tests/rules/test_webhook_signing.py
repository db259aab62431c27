"""D5: signatures verify with the public library, during a rotation with both secrets."""

import base64
import json
import re
import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from ledger.webhooks.signing import (
    SIGNING_BYTES,
    new_header_secret,
    new_signing_secret,
    signature_header,
    timestamp_header,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"
MESSAGE_ID = "019b2f6c-1000-7abc-8def-0123456789ab"
BODY = json.dumps({"id": MESSAGE_ID, "event": "invoice.paid", "data": {"note": "Grüße €"}}).encode()


def headers_for(secrets: list[str], *, body: bytes = BODY, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": timestamp_header(at),
        "webhook-signature": signature_header(secrets=secrets, message_id=MESSAGE_ID, timestamp=at, body=body),
    }


def verifies(secret: str, headers: dict[str, str], body: bytes = BODY) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def test_the_public_library_verifies_what_is_signed() -> None:
    secret = new_signing_secret()
    assert Webhook(secret).verify(BODY, headers_for([secret])) == json.loads(BODY)


def test_the_public_library_refuses_anything_else() -> None:
    secret = new_signing_secret()
    headers = headers_for([secret])
    assert not verifies(new_signing_secret(), headers)
    assert not verifies(secret, headers, BODY + b" ")
    assert not verifies(secret, headers | {"webhook-id": "another"})
    later = timestamp_header(datetime.now(UTC) + timedelta(seconds=1))
    assert not verifies(secret, headers | {"webhook-timestamp": later})
    assert not verifies(secret, headers_for([secret], at=datetime.now(UTC) - timedelta(minutes=6)))


def test_while_a_rotation_is_young_both_secrets_verify() -> None:
    old, new = new_signing_secret(), new_signing_secret()
    headers = headers_for([new, old])
    assert verifies(new, headers)
    assert verifies(old, headers)
    assert not verifies(old, headers_for([new]))
    assert headers["webhook-signature"].count(" ") == 1
    assert all(each.startswith("v1,") for each in headers["webhook-signature"].split(" "))


def test_the_python_code_of_the_documentation_verifies_what_is_signed(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert code is not None
    shown = tmp_path / "shown.py"
    shown.write_text(code[1])
    verify = runpy.run_path(str(shown))["verify"]
    old, new = new_signing_secret(), new_signing_secret()
    headers = headers_for([new, old])
    assert verify(BODY, headers, new) == verify(BODY, headers, old) == json.loads(BODY)
    for body, wrong, secret in (
        (BODY, headers, new_signing_secret()),
        (BODY + b" ", headers, new),
        (BODY, headers | {"webhook-id": "another"}, new),
        (BODY, {}, new),
        (BODY, headers_for([new], at=datetime.now(UTC) - timedelta(minutes=6)), new),
    ):
        with pytest.raises(ValueError, match=r"too old|not Ledger's"):
            verify(body, wrong, secret)


def test_the_signature_is_the_one_of_the_specification() -> None:
    """The example that the specification's reference implementations share."""
    header = signature_header(
        secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=datetime.fromtimestamp(1614265330, UTC),
        body=b'{"test": 2432232314}',
    )
    assert header == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_fractions_of_a_second_and_other_zones_do_not_change_the_timestamp() -> None:
    at = datetime(2026, 3, 15, 9, 30, 0, 999_999, tzinfo=UTC)
    assert timestamp_header(at) == timestamp_header(at.replace(microsecond=0)) == "1773567000"


def test_secrets_are_random_and_have_the_form_that_receivers_expect() -> None:
    made = {new_signing_secret() for _ in range(100)}
    assert len(made) == 100
    for secret in made:
        assert secret.startswith("whsec_")
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == SIGNING_BYTES
    assert 24 <= SIGNING_BYTES <= 64
    header = {new_header_secret() for _ in range(100)}
    assert len(header) == 100
    assert all(16 <= len(secret) <= 255 and secret.isascii() and secret.isprintable() for secret in header)


@pytest.mark.parametrize("secret", ["", "whsec_", "plain", "whsec_ä", "whsec_not base64", "sk_live_abc"])
def test_what_is_no_signing_secret_does_not_sign(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_ and base64"):
        signature_header(secrets=[secret], message_id="m", timestamp=datetime.now(UTC), body=b"{}")


@given(st.text(max_size=200), st.binary(min_size=24, max_size=64))
def test_any_body_and_any_secret_of_the_specified_length_verify(text: str, key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace")
    assert verifies(secret, headers_for([secret], body=body), body)
