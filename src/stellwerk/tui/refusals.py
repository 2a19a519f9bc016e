"""German for what a gateway and its lower layers refuse, which they say in English.

A sentence is known by its form; where that is not known, the error's code says at least what it is about.
"""

import functools
import re
from collections.abc import Mapping
from typing import Final

from stellwerk.tui.folder_sentences import FOLDER
from stellwerk.tui.sentences import GATEWAY

SENTENCES: Final[Mapping[str, str]] = {**GATEWAY, **FOLDER}

BY_CODE: Final[Mapping[str, str]] = {
    "balance_below_zero": "Das Guthaben kann nicht unter 0 fallen; was für laufende Anfragen reserviert ist, gilt als "
    "ausgegeben.",
    "built_in_account": "An den eingebauten Konten admin und local lässt sich das nicht ändern.",
    "delivery_gone": "Diese Nachricht lässt sich nicht wiederholen: Aufgehoben wird nur, was wartet oder vor Kurzem "
    "gescheitert ist.",
    "delivery_not_found": "Eine Nachricht mit dieser ID gibt es nicht.",
    "email_taken": "Diese E-Mail-Adresse hat schon jemand.",
    "invalid_email": "Das ist keine E-Mail-Adresse.",
    "invalid_description": "Eine Beschreibung hat höchstens 200 sichtbare Zeichen.",
    "invalid_events": "Ein Webhook braucht mindestens eines der Ereignisse request.finished, generate.requested, "
    "budget.reached, key.parked, engine.crashed, job.finished.",
    "invalid_networks": "Netze sind Adressen oder Bereiche wie 192.0.2.7, 10.0.0.0/8 oder 2001:db8::/32, höchstens 64.",
    "invalid_role": "Wer nicht zusehen darf, kann keinen Schlüssel haben, der es darf.",
    "download_cancelled": "Der Download wurde abgebrochen.",
    "download_failed": "Der Download ist gescheitert; `stellwerk models downloads` nennt den Grund.",
    "download_not_found": "Einen Download mit dieser ID gibt es nicht.",
    "engines_disabled": "Dieses Gateway führt keine eigenen Modelle aus: engines.enabled ist false.",
    "hub_refused": "Der Hub verweigert den Zugriff; hub.token prüfen.",
    "invalid_model_name": "So heißt kein Modell: Beim Hub heißen sie user/repository[:quantisierung], in Ollamas "
    "Bibliothek name[:tag].",
    "last_admin": "Das ist der letzte Administrator, der nicht gesperrt ist.",
    "load_cancelled": "Jemand hat dieses Laden abgebrochen oder lädt das Modell auf andere Weise.",
    "memory_short": "Für dieses Modell reicht der Speicher nicht.",
    "model_exists": "Ein Modell dieses Namens gibt es schon.",
    "model_failed": "Das Modell lässt sich nicht laden.",
    "model_gated": "Für dieses Modell gelten Bedingungen: auf seiner Seite beim Hub annehmen und hub.token auf einen "
    "Schlüssel eines Kontos setzen, das sie angenommen hat.",
    "model_loaded": "Das Modell ist geladen; `stellwerk models unload` entlädt es.",
    "model_not_found": "Dieses Modell gibt es hier nicht; `stellwerk models list` zeigt alle.",
    "model_protected": "Dieses Modell liegt nicht im Modellordner und wird hier nicht gelöscht.",
    "model_unreadable": "Die Datei dieses Modells lässt sich nicht lesen.",
    "not_in_library": "In Ollamas Bibliothek gibt es dieses Modell nicht.",
    "outside_models_folder": "Hier lassen sich nur Dateien des Modellordners nennen, mit ihrem Namen.",
    "port_taken": "Diesen Port benutzt ein anderes Programm.",
    "slot_not_found": "Diesen Platz gibt es nicht; `stellwerk models list` zeigt, wo Modelle geladen sind.",
    "slots_busy": "Alle Plätze sind belegt, und keiner wurde rechtzeitig frei.",
    "signup_not_found": "Eine Anfrage mit dieser Nummer gibt es nicht.",
    "signup_processed": "Über diese Anfrage ist schon entschieden.",
    "invalid_url": "Ein Webhook braucht eine URL mit http oder https aus höchstens 2048 sichtbaren ASCII-Zeichen.",
    "too_many_keys": "Für einen weiteren Schlüssel ist kein Platz. Erst muss einer widerrufen werden, der nicht mehr "
    "gebraucht wird.",
    "too_many_webhooks": "Es gibt schon so viele Webhooks, wie es geben kann. Erst muss einer entfernt werden.",
    "upstream_unreachable": "Der gefragte Server ist nicht zu erreichen.",
    "url_refused": "Diese URL wird nicht gerufen: Sie ist nicht sauber geschrieben, oder sie führt nicht zu einer "
    "öffentlichen Adresse. Im zweiten Fall kann egress.allowed_origins genau ihr Schema, ihren Host und ihren Port "
    "erlauben.",
    "user_exists": "Diese E-Mail-Adresse gehört inzwischen zu einem Benutzer.",
    "user_not_found": "Diesen Benutzer gibt es nicht, oder er ist gesperrt.",
    "webhook_disabled": "Der Webhook ist ausgeschaltet; `stellwerk webhooks enable` schaltet ihn ein.",
    "webhook_not_found": "Einen Webhook mit dieser Nummer gibt es nicht.",
    "weak_password": "Ein Passwort hat 12 bis 256 Zeichen und darf nicht leicht zu erraten sein. Gut sind mehrere "
    "Wörter, die nicht zusammengehören.",
}
"""By the error's code; only codes that mean one thing wherever a command meets them."""

REASONED: Final = frozenset({"model_failed"})
"""Their messages hold a reason that only the engine knows; it is said as it is."""

_LONGEST: Final = 4000


def translated(message: str, code: str = "") -> str:
    """The German for it; the message itself where there is none."""
    found = sentence(message)
    if found is not None:
        return found
    german = BY_CODE.get(code)
    if german is None:
        return message
    return f"{german} ({message})" if code in REASONED else german


def sentence(message: str) -> str | None:
    """The German for a message of a known form; what stands in its places is translated too where it can be."""
    if len(message) > _LONGEST:
        return None
    for form, german in _forms().items():
        if (found := form.fullmatch(message)) is not None:
            return german.format(*(sentence(value) or value for value in found.groups()))
    return None


@functools.cache
def _forms() -> Mapping[re.Pattern[str], str]:
    # Not before somebody needs them: most readers do not.
    places = re.escape("{}")
    return {
        re.compile(re.escape(english).replace(places, "(.+?)"), re.DOTALL): german
        for english, german in SENTENCES.items()
    }
