"""What the console says on screen, in English and German.

Every text has a key and stands here in both languages with the same `{placeholders}`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from stellwerk.tui.refusals import translated
from stellwerk.tui.trouble import ConsoleTrouble

Language = Literal["en", "de"]

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    # --- header and views
    "connecting": {"en": "connecting", "de": "verbindet"},
    "connected": {"en": "connected", "de": "verbunden"},
    "reconnecting": {"en": "reconnecting in {seconds} s", "de": "neuer Versuch in {seconds} s"},
    "view.models": {"en": "Models", "de": "Modelle"},
    "view.queues": {"en": "Queues", "de": "Warteschlangen"},
    "view.requests": {"en": "Requests", "de": "Anfragen"},
    "view.crashes": {"en": "Crashes", "de": "Abstürze"},
    # --- columns
    "column.model": {"en": "Model", "de": "Modell"},
    "column.state": {"en": "State", "de": "Zustand"},
    "column.port": {"en": "Port", "de": "Port"},
    "column.uptime": {"en": "Uptime", "de": "Läuft"},
    "column.resolution": {"en": "OCR mode", "de": "OCR-Stufe"},
    "column.health": {"en": "Health", "de": "Gesund"},
    "column.memory": {"en": "Memory", "de": "Speicher"},
    "column.queue": {"en": "Queue", "de": "Warteschlange"},
    "column.processing": {"en": "Running", "de": "Läuft"},
    "column.waiting": {"en": "Waiting", "de": "Wartet"},
    "column.utilization": {"en": "Utilisation", "de": "Auslastung"},
    "column.processed": {"en": "Done", "de": "Fertig"},
    "column.failed": {"en": "Failed", "de": "Fehler"},
    "column.pace": {"en": "/min", "de": "/min"},
    "column.id": {"en": "Request", "de": "Anfrage"},
    "column.client": {"en": "Client", "de": "Client"},
    "column.position": {"en": "Place", "de": "Platz"},
    "column.age": {"en": "Age", "de": "Alter"},
    "column.at": {"en": "When", "de": "Wann"},
    "column.reason": {"en": "Why", "de": "Warum"},
    # --- states of models and requests
    "state.running": {"en": "running", "de": "läuft"},
    "state.loading": {"en": "loading", "de": "lädt"},
    "state.draining": {"en": "draining", "de": "leert sich"},
    "state.crashed": {"en": "crashed", "de": "abgestürzt"},
    "state.stopped": {"en": "stopped", "de": "steht"},
    "state.unusable": {"en": "unusable", "de": "defekt"},
    "state.queued": {"en": "queued", "de": "wartet"},
    "state.done": {"en": "done", "de": "fertig"},
    "state.failed": {"en": "failed", "de": "gescheitert"},
    "state.cancelled": {"en": "cancelled", "de": "abgebrochen"},
    "state.dead": {"en": "dead", "de": "aufgegeben"},
    "paused": {"en": "paused", "de": "hält"},
    # --- what stands below a table
    "nothing.models": {"en": "There are no models.", "de": "Es gibt keine Modelle."},
    "nothing.queues": {"en": "There are no queues.", "de": "Es gibt keine Warteschlangen."},
    "nothing.requests": {"en": "There are no requests.", "de": "Es gibt keine Anfragen."},
    "nothing.crashes": {"en": "Nothing has crashed.", "de": "Nichts ist abgestürzt."},
    "nothing.found": {"en": "Nothing here contains “{text}”.", "de": "Nichts hier enthält „{text}“."},
    "not_offered": {"en": "This address does not tell that.", "de": "Diese Adresse gibt das nicht an."},
    "advice": {"en": "Auto-switch suggests: {model}", "de": "Auto-Switch rät zu: {model}"},
    "advice.replacing": {
        "en": "Auto-switch suggests: {model} in place of {replaces}",
        "de": "Auto-Switch rät zu: {model} statt {replaces}",
    },
    "advice.none": {"en": "Auto-switch suggests no change.", "de": "Auto-Switch rät zu keiner Änderung."},
    # As the gateway says them, which only speaks English.
    "reason.none": {
        "en": "No local model was asked for in the window.",
        "de": "Im Zeitraum wurde kein lokales Modell gefragt.",
    },
    "reason.share": {
        "en": "{model} had {requests} of {total} requests ({share}).",
        "de": "{model} hatte {requests} von {total} Anfragen ({share}).",
    },
    "reason.loaded": {"en": "It is in memory already.", "de": "Es ist schon geladen."},
    "reason.few": {
        "en": "Fewer than {least} requests say too little.",
        "de": "Weniger als {least} Anfragen sagen zu wenig.",
    },
    "reason.unclear": {
        "en": "Less than {share} of the requests is no clear pattern.",
        "de": "Weniger als {share} der Anfragen sind kein klares Muster.",
    },
    "reason.cooldown": {
        "en": "The last switch was a moment ago; the next one may come in {seconds} s.",
        "de": "Eben erst wurde gewechselt; wieder möglich in {seconds} s.",
    },
    "reason.off": {"en": "Switching by itself is off.", "de": "Von selbst gewechselt wird nicht."},
    "reason.pinned": {
        "en": "Every model in memory is pinned.",
        "de": "Jedes geladene Modell ist angeheftet.",
    },
    "reason.busy": {
        "en": "{model} would have to go, and work is running on it.",
        "de": "{model} müsste weichen und wird gerade gebraucht.",
    },
    "machine": {"en": "Calls running: {calls}   {memory}", "de": "Laufende Anfragen: {calls}   {memory}"},
    "machine.memory": {
        "en": "memory of models: {used} of {capacity} MiB",
        "de": "Speicher der Modelle: {used} von {capacity} MiB",
    },
    "queue.more": {
        "en": "{queue}: timed out {timeout}, cancelled {cancelled}, given up {dead}, room for {room} waiting",
        "de": "{queue}: zu spät {timeout}, abgebrochen {cancelled}, aufgegeben {dead}, Platz für {room} Wartende",
    },
    "job.more": {"en": "{id}, {kind}, attempts: {attempts}", "de": "{id}, {kind}, Versuche: {attempts}"},
    "job.progress": {"en": "done: {done} of {total} {unit}", "de": "erledigt: {done} von {total} {unit}"},
    "crash.lines": {"en": "Last lines of {model}:", "de": "Letzte Zeilen von {model}:"},
    "crash.no_lines": {"en": "{model} left no last lines.", "de": "{model} hat keine letzten Zeilen hinterlassen."},
    # --- keys
    "key.start": {"en": "Start", "de": "Start"},
    "key.stop": {"en": "Stop", "de": "Stopp"},
    "key.force": {"en": "Force", "de": "Sofort"},
    "key.resolution": {"en": "OCR mode", "de": "OCR-Stufe"},
    "key.pause": {"en": "Pause/resume", "de": "Halt/weiter"},
    "key.cancel": {"en": "Cancel", "de": "Abbrechen"},
    "key.filter": {"en": "Filter", "de": "Filter"},
    "key.refresh": {"en": "Refresh", "de": "Neu"},
    "key.help": {"en": "Help", "de": "Hilfe"},
    "key.quit": {"en": "Quit", "de": "Ende"},
    "filter": {"en": "Show only: ", "de": "Nur zeigen: "},
    "filtered": {"en": "only “{text}”", "de": "nur „{text}“"},
    "help.title": {"en": "Keys", "de": "Tasten"},
    "help.move": {"en": "choose a line", "de": "eine Zeile wählen"},
    "help.views": {"en": "models, queues, requests, crashes", "de": "Modelle, Warteschlangen, Anfragen, Abstürze"},
    "help.next": {"en": "next view", "de": "nächste Ansicht"},
    "help.start": {"en": "load the chosen model", "de": "das gewählte Modell laden"},
    "help.stop": {"en": "unload it when its calls have ended", "de": "es entladen, wenn seine Anfragen fertig sind"},
    "help.force": {"en": "unload it at once", "de": "es sofort entladen"},
    "help.resolution": {"en": "choose the OCR mode", "de": "die OCR-Stufe wählen"},
    "help.pause": {
        "en": "pause or resume the chosen queue",
        "de": "die gewählte Warteschlange anhalten oder fortsetzen",
    },
    "help.cancel": {"en": "cancel the chosen request", "de": "die gewählte Anfrage abbrechen"},
    "help.filter": {"en": "show only some lines; Esc shows all", "de": "nur manche Zeilen zeigen; Esc zeigt alle"},
    "help.refresh": {"en": "look again now", "de": "jetzt neu nachsehen"},
    "help.quit": {"en": "quit", "de": "beenden"},
    "help.close": {"en": "Any key closes this.", "de": "Jede Taste schließt dies."},
    # --- questions
    "ask.stop": {"en": "Unload {model} when its calls have ended?", "de": "{model} entladen, wenn alles fertig ist?"},
    "ask.force": {
        "en": "Unload {model} at once? Running calls are cut off.",
        "de": "{model} sofort entladen? Laufende Anfragen brechen ab.",
    },
    "ask.cancel": {"en": "Cancel request {id}?", "de": "Anfrage {id} abbrechen?"},
    "ask.resolution": {"en": "OCR mode", "de": "OCR-Stufe"},
    "ask.keys": {"en": "y yes   n no", "de": "j ja   n nein"},
    "ask.choose": {"en": "↑ ↓ choose   Enter take   Esc leave", "de": "↑ ↓ wählen   Enter nehmen   Esc lassen"},
    # --- what was done
    "doing": {"en": "Still at work: {what}", "de": "Noch dabei: {what}"},
    "doing.start": {"en": "Loading {model} …", "de": "{model} wird geladen …"},
    "doing.stop": {"en": "Unloading {model} …", "de": "{model} wird entladen …"},
    "doing.resolution": {"en": "OCR mode {resolution} …", "de": "OCR-Stufe {resolution} …"},
    "doing.pause": {"en": "Pausing {queue} …", "de": "{queue} wird angehalten …"},
    "doing.resume": {"en": "Resuming {queue} …", "de": "{queue} wird fortgesetzt …"},
    "doing.cancel": {"en": "Cancelling {id} …", "de": "{id} wird abgebrochen …"},
    "did.start": {"en": "{model} is being loaded.", "de": "{model} wird geladen."},
    "did.stop": {"en": "{model} is unloaded.", "de": "{model} ist entladen."},
    "did.resolution": {"en": "OCR mode is {resolution}.", "de": "Die OCR-Stufe ist {resolution}."},
    "did.pause": {"en": "{queue} is paused.", "de": "{queue} hält."},
    "did.resume": {"en": "{queue} goes on.", "de": "{queue} läuft weiter."},
    "did.cancel": {"en": "{id} is cancelled.", "de": "{id} ist abgebrochen."},
    "choose_first": {"en": "Choose a line first.", "de": "Bitte erst eine Zeile wählen."},
    "not_here": {"en": "This key does nothing in this view.", "de": "Diese Taste tut in dieser Ansicht nichts."},
    "not_loaded": {"en": "{model} is not loaded.", "de": "{model} ist nicht geladen."},
    "already_loaded": {"en": "{model} is loaded already.", "de": "{model} ist schon geladen."},
    "has_ended": {"en": "This request has ended.", "de": "Diese Anfrage ist beendet."},
    # --- trouble
    "trouble.unreachable": {"en": "Nobody answers at {url}.", "de": "Unter {url} antwortet niemand."},
    "trouble.silent": {"en": "{url} does not answer in time.", "de": "{url} antwortet nicht rechtzeitig."},
    "trouble.unauthenticated": {
        "en": "401: the token is wrong or has expired. Get a new one and start again.",
        "de": "401: Das Token ist falsch oder abgelaufen. Bitte mit einem neuen starten.",
    },
    "trouble.forbidden": {
        "en": "403: this token may not do that; it takes an administrator's.",
        "de": "403: Dieses Token darf das nicht; es muss eins der Verwaltung sein.",
    },
    "trouble.not_offered": {"en": "This address cannot do that.", "de": "Diese Adresse kann das nicht."},
    "trouble.no_gateway": {"en": "What answers at {url} is no gateway.", "de": "Unter {url} antwortet kein Gateway."},
    "trouble.answer": {"en": "{code}: {message}", "de": "{code}: {message}"},
    "trouble.bad_url": {
        "en": "{url} is no address such as http://localhost:8080",
        "de": "{url} ist keine Adresse wie http://localhost:8080",
    },
    "trouble.bad_token": {
        "en": "A token has no blanks and no characters outside ASCII.",
        "de": "Ein Token hat keine Leerzeichen und keine Zeichen außerhalb von ASCII.",
    },
    # --- before there is a screen
    "usage": {
        "en": "Usage: python -m console.tui URL TOKEN\n\n"
        "URL    where the gateway listens, such as {url}\n"
        "TOKEN  an administrator's, from POST /auth/token, or an API key; better in STELLWERK_API_KEY,\n"
        "       where other users of this machine cannot read it\n",
        "de": "Aufruf: python -m console.tui URL TOKEN\n\n"
        "URL    wo das Gateway zu erreichen ist, etwa {url}\n"
        "TOKEN  eins der Verwaltung, von POST /auth/token, oder ein API-Schlüssel; besser in STELLWERK_API_KEY,\n"
        "       wo andere Benutzer dieses Rechners es nicht lesen können\n",
    },
    "no_token": {
        "en": "There is no token. Give one as the second word or in STELLWERK_API_KEY.",
        "de": "Es gibt kein Token. Bitte als zweites Wort oder in STELLWERK_API_KEY angeben.",
    },
    "no_terminal": {"en": "The console needs a terminal.", "de": "Die Konsole braucht ein Terminal."},
}


_PLACEHOLDER = re.compile(r"\\{(\w+)\\}")
_REASONS: Final[Mapping[str, re.Pattern[str]]] = {
    key: re.compile(_PLACEHOLDER.sub(r"(?P<\1>.+)", re.escape(text["en"])))
    for key, text in TEXTS.items()
    if key.startswith("reason.")
}


def language(environ: Mapping[str, str]) -> Language:
    """`de` when the locale of the environment starts with it, `en` otherwise."""
    locale = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return "de" if locale.lower().startswith("de") else "en"


class Words:
    """The texts in one language: `words("not_loaded", model="m")`."""

    def __init__(self, spoken: Language) -> None:
        self.language = spoken

    def __call__(self, key: str, **values: Any) -> str:
        return TEXTS[key][self.language].format_map(values)

    def trouble(self, trouble: ConsoleTrouble) -> str:
        """Why something did not work, with what the gateway said of it in the language of the console."""
        values = trouble.values
        if self.language == "de" and "message" in values:
            values = {**values, "message": translated(values["message"], trouble.code)}
        return self(trouble.key, **values)

    def reason(self, said: str) -> str:
        """A sentence of the gateway's in the language of the console; one that it does not know stays English."""
        for key, pattern in _REASONS.items():
            if (found := pattern.fullmatch(said)) is not None:
                return self(key, **found.groupdict())
        return said

    def state(self, state: str) -> str:
        """A state that a newer gateway has and this table lacks is shown as it is."""
        texts = TEXTS.get(f"state.{state}")
        return state if texts is None else texts[self.language]
