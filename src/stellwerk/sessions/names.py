"""Session ids and models as parts of file names: nothing that a client sends may lead out of its folder."""

import hashlib
import re

from stellwerk.core.errors import BadRequest

_SESSION_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Windows opens a device by these names, with any ending."""

_FOREIGN = re.compile(r"[^A-Za-z0-9._-]|^[.-]")
_LONGEST_MODEL = 100


def check_session_id(text: str) -> str:
    """Returns the id as it is. Raises BadRequest, code `invalid_session_id`."""
    if _SESSION_ID.fullmatch(text) is None or ".." in text or _DEVICE.fullmatch(text) is not None:
        raise BadRequest(
            "'session_id' must be 1 to 64 letters, digits, '.', '_' or '-', without a leading dot, without '..' "
            "and not the name of a device.",
            param="session_id",
            code="invalid_session_id",
        )
    return text


def session_file_name(model: str, session_id: str) -> str:
    """`<model>-<session id>.json`, the same for two models never, unless one's name goes on where the other's ends.

    `a-b` with `c` and `a` with `b-c` are one file: this form of the name is what people know. Raises BadRequest for a
    bad session id.
    """
    return f"{_model_part(model)}-{check_session_id(session_id)}.json"


def _model_part(model: str) -> str:
    part = _FOREIGN.sub("_", model)[:_LONGEST_MODEL]
    if part == model and part:
        return part
    digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    # A tilde is in no name that stays as it is, so nobody can choose a model that looks like this one.
    return f"{part}~{digest}"
