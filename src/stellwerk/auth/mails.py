"""Texts for an admin to copy into a mail: the gateway itself sends none.

Nothing that a stranger wrote stands in them, so nothing of it can reach a header.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from stellwerk.core.principal import Tier
from stellwerk.core.secrets import Secret

Language = Literal["en", "de"]


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """Plain text. The body may hold a key: it is for the recipient alone."""

    subject: str
    body: str


def approval_mail(language: Language, *, base_url: str, tier: Tier, key: Secret | None = None) -> Mail:
    """Tells a new user what to do. Without the key a placeholder stands in its place.

    `base_url` is the gateway's own address as users reach it, such as `https://llm.example.org`.
    """
    texts = _APPROVAL[language]
    body = texts["body"].format(
        url=base_url.rstrip("/"),
        key=texts["placeholder"] if key is None else key.reveal(),
        payment=texts["sub" if tier is Tier.SUB else "payg" if tier is Tier.PAYG else "admin"],
    )
    return Mail(subject=texts["subject"], body=body)


def rejection_mail(language: Language) -> Mail:
    texts = _REJECTION[language]
    return Mail(subject=texts["subject"], body=texts["body"])


_APPROVAL: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "subject": "Your access to Stellwerk",
        "placeholder": "<the key that you receive separately>",
        "payg": "You pay for what you use, from a balance. It is empty now: ask us how to top it up.",
        "sub": "You use it by subscription; calls are not charged one by one.",
        "admin": "Your calls are not charged.",
        "body": """Hello,

your account is ready. This is what you need:

  Address:  {url}/v1
  API key:  {key}

The key is shown only this once. Keep it like a password: whoever has it can use your account.

{payment}

Any program for OpenAI's API works with it; enter the address and the key there. A first try:

  curl {url}/v1/models -H "Authorization: Bearer {key}"

Kind regards
""",
    },
    "de": {
        "subject": "Ihr Zugang zu Stellwerk",
        "placeholder": "<der Schlüssel, den Sie gesondert erhalten>",
        "payg": "Sie zahlen nach Verbrauch von einem Guthaben. Noch ist es leer: Fragen Sie uns, wie Sie es aufladen.",
        "sub": "Sie nutzen den Zugang im Abonnement; einzelne Anfragen werden nicht berechnet.",
        "admin": "Ihre Anfragen werden nicht berechnet.",
        "body": """Guten Tag,

Ihr Konto ist eingerichtet. Das brauchen Sie:

  Adresse:        {url}/v1
  API-Schlüssel:  {key}

Der Schlüssel wird nur dieses eine Mal gezeigt. Bewahren Sie ihn wie ein Passwort auf: Wer ihn hat, kann Ihr Konto
benutzen.

{payment}

Jedes Programm für die API von OpenAI kommt damit zurecht; tragen Sie dort Adresse und Schlüssel ein. Zum Ausprobieren:

  curl {url}/v1/models -H "Authorization: Bearer {key}"

Freundliche Grüße
""",
    },
}

_REJECTION: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "subject": "Your request for access to Stellwerk",
        "body": """Hello,

thank you for asking for an account. We cannot give you one at the moment.

If you think that this is a mistake, answer this mail.

Kind regards
""",
    },
    "de": {
        "subject": "Ihre Anfrage nach einem Zugang zu Stellwerk",
        "body": """Guten Tag,

vielen Dank für Ihre Anfrage. Wir können Ihnen zurzeit keinen Zugang geben.

Falls Sie das für ein Versehen halten, antworten Sie auf diese Mail.

Freundliche Grüße
""",
    },
}
