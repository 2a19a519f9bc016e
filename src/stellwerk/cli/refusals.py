"""What commands say in German when something is refused. The errors themselves are written in English, for clients."""

import os

from stellwerk.cli.gateway_client import GatewayTrouble
from stellwerk.cli.language import language, text
from stellwerk.core.errors import GatewayError
from stellwerk.tui.refusals import translated


def explain(error: GatewayError) -> str:
    """The error's message, in German where there is one for it and the reader wants it."""
    return explain_code(error.code, error.message)


def explain_code(code: str, message: str) -> str:
    """The same for an error that a gateway has told."""
    return translated(message, code) if language(os.environ) == "de" else message


def explain_trouble(trouble: GatewayTrouble, *, refused: bool = True) -> str:
    """Why a gateway could not be asked; without `refused` a refusal is the gateway's own sentence alone."""
    values = trouble.values
    if trouble.key == "chat.refused" and not refused:
        return explain_code(trouble.code, str(values["message"]))
    if "message" in values:
        # What a vendor says has codes too, and says more than they do.
        values = {**values, "message": explain_text(str(values["message"]))}
    return text(trouble.key, **values)


def explain_text(message: str) -> str:
    """The same for what has no code: why the data folder cannot be used, or a reason of the system."""
    return explain_code("", message)
