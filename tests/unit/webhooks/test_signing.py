import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from stellwerk.storage.sealing import SealBroken
from stellwerk.webhooks.signing import new_secret, open_secret, seal_secret, sign

BODY = '{"type":"test","data":{"text":"grün"}}'.encode()


def test_a_new_secret_is_one_of_standard_webhooks():
    secret = new_secret().reveal()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert repr(new_secret()) == "***"


def test_a_receiver_with_the_library_takes_the_signature():
    secret, at = new_secret(), time.time()
    headers = dict(sign([secret], "msg_1", at, BODY))
    assert Webhook(secret.reveal()).verify(BODY, headers)["type"] == "test"
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == str(int(at))


@pytest.mark.parametrize(
    "change",
    [
        lambda headers: headers | {"webhook-id": "msg_2"},
        lambda headers: headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)},
    ],
)
def test_the_signature_holds_for_this_message_at_this_time_alone(change):
    secret = new_secret()
    headers = change(dict(sign([secret], "msg_1", time.time(), BODY)))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret.reveal()).verify(BODY, headers)


def test_while_a_secret_is_replaced_both_verify():
    new, old = new_secret(), new_secret()
    headers = dict(sign([new, old], "msg_1", time.time(), BODY))
    for secret in (new, old):
        assert Webhook(secret.reveal()).verify(BODY, headers)


def test_the_signature_is_that_of_the_specification():
    """Id, time and secret of an example that receivers in all languages are tested with."""
    secret = new_secret().__class__("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = dict(sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'))
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_stored_secret_can_be_opened_as_such_only(seal):
    secret = new_secret()
    sealed = seal_secret(seal, secret)
    assert open_secret(seal, sealed) == secret
    with pytest.raises(SealBroken):
        seal.open(sealed)
