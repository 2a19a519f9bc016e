"""Takes over what a `usage.db` of Ollama Cloud Proxy holds: the calls that each of its keys has answered."""

from sqlalchemy import Connection

from stellwerk.auth.users import built_in_user
from stellwerk.cli.data import OpenFolder
from stellwerk.cli.import_report import Finding, refused
from stellwerk.cli.old_database import OldRow, read_time
from stellwerk.cli.tables import NOTHING, Wording, utc_time, visible
from stellwerk.ledger.past_calls import PastCall, add_past_upstream_call

TABLE = "usage"
COLUMNS = ("id", "timestamp", "key_index", "model", "prompt_tokens", "completion_tokens")

_SOURCE = "ollama-cloud-proxy"
_MOST_KEYS = 10_000
_MOST_TOKENS = 10**12
_LONGEST_MODEL = 256

TEXTS = {
    "damaged": {"en": "the row is damaged or too large", "de": "die Zeile ist beschädigt oder zu groß"},
    "bad_time": {"en": "the time cannot be read", "de": "die Zeit ist nicht lesbar"},
    "bad_number": {
        "en": "{column} is not a whole number from 0 to {most}",
        "de": "{column} ist keine ganze Zahl von 0 bis {most}",
    },
    "bad_model": {
        "en": "model is not a name of 1 to 256 visible characters",
        "de": "model ist kein Name aus 1 bis 256 sichtbaren Zeichen",
    },
    "what": {"en": "key {index}, {model}, {time}", "de": "Schlüssel {index}, {model}, {time}"},
}
text = Wording(TEXTS)


class UsageImport:
    """Takes rows of the table `usage`, which is of the keys of one provider."""

    def __init__(self, folder: OpenFolder, provider: str) -> None:
        self._folder = folder
        self._provider = provider

    def take(self, connection: Connection, row: OldRow) -> Finding:
        """Stores one row in the transaction of `connection`."""
        values = row.values
        if values is None:
            return refused(TABLE, row.number, NOTHING, text("damaged"))
        at = read_time(values.get("timestamp"))
        if at is None:
            return refused(TABLE, row.number, NOTHING, text("bad_time"))
        counts = []
        for column, most in (
            ("key_index", _MOST_KEYS),
            ("prompt_tokens", _MOST_TOKENS),
            ("completion_tokens", _MOST_TOKENS),
        ):
            value = values.get(column)
            value = 0 if value is None and column != "key_index" else value
            if not isinstance(value, int) or not 0 <= value <= most:
                return refused(TABLE, row.number, utc_time(at), text("bad_number", column=column, most=most))
            counts.append(value)
        model = values.get("model")
        if not isinstance(model, str) or not 0 < len(model) <= _LONGEST_MODEL or visible(model) != model:
            return refused(TABLE, row.number, utc_time(at), text("bad_model"))
        index, prompt, completion = counts
        call = PastCall(
            # Two proxies may have given the same number, hardly in the same second.
            id=f"{_SOURCE}-{row.number}",
            at=at,
            key_id=_SOURCE,
            user_id=built_in_user(connection, "local", now=self._folder.now),
            model=model,
            input_tokens=prompt,
            output_tokens=completion,
        )
        made = add_past_upstream_call(connection, call, self._provider, index)
        shown = text("what", index=index, model=model, time=utc_time(at))
        return Finding(table=TABLE, row=row.number, what=shown, result="imported" if made else "present")
