"""Keeps secrets out of the logs: everything that looks like a key, and the secrets that the gateway was given."""

import re

from stellwerk.core.secrets import Secret

MASK = "***"
MAX_SECRETS = 1_000
MIN_SECRET_LENGTH = 6
"""Shorter texts are too common to be told from ordinary words."""

MAX_SECRET_LENGTH = 4_096

_HINTS = ("sk-", "gsk_", "xai-", "aiza", "hf_", "pplx-", "whsec_", "bearer ", "basic ", "://", "key=", "token=")
"""Every text that one of the patterns below matches holds one of these when it is in lower case."""
_LOOKS_LIKE_A_KEY = (
    # The prefixes by which OpenAI and those who follow it, Groq, xAI, Google, Hugging Face, Perplexity mark their keys.
    r"(?<![A-Za-z0-9])(?:sk-|gsk_|xai-|AIza|hf_|pplx-)[A-Za-z0-9_\-.]{6,}",
    # Signing secrets of webhooks, in base64.
    r"(?<![A-Za-z0-9])whsec_[A-Za-z0-9+/=]{6,}",
    # What follows the scheme of an Authorization header.
    r"(?i:(?<=\bbearer )|(?<=authorization: basic ))[^\s\"',;]{8,}",
    # The user and password of an address.
    r"(?<=://)[^/\s@\"']{1,1024}(?=@)",
    # A key in the query of an address.
    r"(?i:(?<=[?&]key=)|(?<=[?&]api_key=)|(?<=[?&]apikey=)|(?<=[?&]token=))[^&\s\"']+",
)


class Redactor:
    """Replaces secrets in texts by `***`."""

    def __init__(self) -> None:
        # Replaced, never changed: texts are redacted in several threads.
        self._secrets: tuple[str, ...] = ()
        self._compiled: tuple[tuple[str, ...], re.Pattern[str]] = (self._secrets, _pattern(self._secrets))

    def add_secret(self, secret: Secret) -> None:
        """Masks this secret from now on, wherever it stands.

        Raises ValueError past MAX_SECRETS secrets and for one longer than MAX_SECRET_LENGTH characters.
        """
        text = secret.reveal()
        if len(text) < MIN_SECRET_LENGTH or text in self._secrets:
            return
        if len(text) > MAX_SECRET_LENGTH:
            raise ValueError(f"a secret of more than {MAX_SECRET_LENGTH} characters cannot be kept out of the logs")
        if len(self._secrets) >= MAX_SECRETS:
            raise ValueError(f"more than {MAX_SECRETS} secrets cannot be kept out of the logs")
        self._secrets = (*self._secrets, text)

    def redact(self, text: str, limit: int) -> str:
        """The text without secrets, cut to `limit` characters.

        Secrets are masked before the text is cut: one that lies across the limit would not be found in its first part.
        """
        if self._may_hold_secret(text):
            text = self._masked(text, limit)
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def _may_hold_secret(self, text: str) -> bool:
        # Searching for fixed texts is so much faster than the pattern that almost every text is done here.
        # Written as loops because a generator costs more than all its comparisons.
        folded = text.lower()
        for hint in _HINTS:
            if hint in folded:
                return True
        for secret in self._secrets:  # noqa: SIM110
            if secret in text:
                return True
        return False

    def _masked(self, text: str, limit: int) -> str:
        # The part that is searched is bounded. A secret that begins before `last` lies in it whole.
        stop = 2 * limit + MAX_SECRET_LENGTH
        last = len(text) if len(text) <= stop else stop - MAX_SECRET_LENGTH
        secrets, pattern = self._compiled
        if secrets is not self._secrets:
            secrets = self._secrets
            pattern = _pattern(secrets)
            self._compiled = (secrets, pattern)
        pieces: list[str] = []
        end = 0
        for match in pattern.finditer(text, 0, stop):
            if match.start() >= last:
                break
            pieces += (text[end : match.start()], MASK)
            end = match.end()
        pieces.append(text[end:last])
        return "".join(pieces) if last == len(text) else "".join(pieces) + "…"


def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    # The longest first, so that a secret which begins like another one is masked whole.
    known = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)]
    return re.compile("|".join((*known, *_LOOKS_LIKE_A_KEY)))
