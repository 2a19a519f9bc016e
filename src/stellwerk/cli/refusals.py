"""What commands say in German when something is refused. The errors themselves are written in English, for clients."""

import os
from collections.abc import Mapping

from stellwerk.cli.language import language
from stellwerk.core.errors import GatewayError

GERMAN: Mapping[str, str] = {
    "balance_below_zero": "Das Guthaben kann nicht unter 0 fallen; was für laufende Anfragen reserviert ist, gilt als "
    "ausgegeben.",
    "built_in_account": "An den eingebauten Konten admin und local lässt sich das nicht ändern.",
    "email_taken": "Diese E-Mail-Adresse hat schon jemand.",
    "invalid_email": "Das ist keine E-Mail-Adresse.",
    "invalid_networks": "Netze sind Adressen oder Bereiche wie 192.0.2.7, 10.0.0.0/8 oder 2001:db8::/32, höchstens 64.",
    "invalid_role": "Wer nicht zusehen darf, kann keinen Schlüssel haben, der es darf.",
    "last_admin": "Das ist der letzte Administrator, der nicht gesperrt ist.",
    "signup_not_found": "Eine Anfrage mit dieser Nummer gibt es nicht.",
    "signup_processed": "Über diese Anfrage ist schon entschieden.",
    "too_many_keys": "Für einen weiteren Schlüssel ist kein Platz. Erst muss einer widerrufen werden, der nicht mehr "
    "gebraucht wird.",
    "user_exists": "Diese E-Mail-Adresse gehört inzwischen zu einem Benutzer.",
    "user_not_found": "Diesen Benutzer gibt es nicht, oder er ist gesperrt.",
    "weak_password": "Ein Passwort hat 12 bis 256 Zeichen und darf nicht leicht zu erraten sein. Gut sind mehrere "
    "Wörter, die nicht zusammengehören.",
}
"""By the error's code; only codes that mean one thing wherever a command meets them."""


def explain(error: GatewayError) -> str:
    """The error's message, in German where there is one for its code and the reader wants it."""
    if language(os.environ) == "de":
        return GERMAN.get(error.code, error.message)
    return error.message
