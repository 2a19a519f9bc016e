"""What the commands say on screen, in English and German.

Every text has a key and stands here in both languages with the same `{placeholders}`. The messages of config problems
have their English in `stellwerk.config.problems` and their German here.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stellwerk.tui.refusals import translated

if TYPE_CHECKING:
    from stellwerk.config.problems import ConfigProblem

TEXTS: Mapping[str, Mapping[str, str]] = {
    "serve.ready": {
        "en": "Stellwerk {version} answers on {url}",
        "de": "Stellwerk {version} antwortet auf {url}",
    },
    "serve.admin_key": {
        "en": "Admin key, shown only this once: {secret}",
        "de": "Admin-Schlüssel, nur dieses eine Mal gezeigt: {secret}",
    },
    "serve.admin_key_file": {
        "en": "The admin key is in {file}, readable by you alone.",
        "de": "Der Admin-Schlüssel steht in {file}, nur für Sie lesbar.",
    },
    "serve.for_this_machine": {
        "en": "For clients of {name}, on this machine and without a key: {urls}",
        "de": "Für Clients von {name}, auf diesem Rechner und ohne Schlüssel: {urls}",
    },
    "serve.for_networks": {
        "en": "For clients of {name}, from {networks} and without a key: {urls}",
        "de": "Für Clients von {name}, aus {networks} und ohne Schlüssel: {urls}",
    },
    "serve.for_keys": {
        "en": "For clients of {name}, with a key: {urls}",
        "de": "Für Clients von {name}, mit Schlüssel: {urls}",
    },
    "serve.closed": {
        "en": "One listener for clients of {name} stays closed. {reason}",
        "de": "Ein Zugang für Clients von {name} bleibt geschlossen. {reason}",
    },
    "serve.authority": {
        "en": "  These clients have to trust the certificate authority {file}",
        "de": "  Diese Clients müssen der Zertifizierungsstelle {file} vertrauen.",
    },
    "serve.fingerprint": {
        "en": "  Its SHA-256 fingerprint: {digits}",
        "de": "  Deren SHA-256-Fingerabdruck: {digits}",
    },
    "serve.no_fingerprint": {
        "en": "  It cannot be read: {reason}",
        "de": "  Sie lässt sich nicht lesen: {reason}",
    },
    "serve.try": {
        "en": "Try it:",
        "de": "Zum Ausprobieren:",
    },
    "serve.example_question": {
        "en": "What is Stellwerk?",
        "de": "Was ist Stellwerk?",
    },
    "serve.stop": {
        "en": "Ctrl+C stops it; running answers are finished first.",
        "de": "Strg+C beendet; laufende Antworten werden vorher fertig.",
    },
    "serve.cannot_listen": {
        "en": "Cannot listen on {host} port {port}: {reason}. Another port: stellwerk serve --port 4100",
        "de": "Auf {host}, Port {port}, kann das Gateway nicht lauschen: {reason}. Anderer Port: "
        "stellwerk serve --port 4100",
    },
    "config.exists": {
        "en": "{file} exists already; --force replaces it.",
        "de": "{file} gibt es schon; --force ersetzt sie.",
    },
    "config.cannot_write": {
        "en": "{file} cannot be written: {reason}",
        "de": "{file} lässt sich nicht schreiben: {reason}",
    },
    "config.written": {
        "en": "Written: {file}, and {schema} for editors.",
        "de": "Geschrieben: {file}, dazu {schema} für Editoren.",
    },
    "config.right": {
        "en": "{file} is right.",
        "de": "{file} ist in Ordnung.",
    },
    "config.right_without_file": {
        "en": "There is no config file; the defaults and the environment are right.",
        "de": "Es gibt keine Konfigurationsdatei; Vorgaben und Umgebung sind in Ordnung.",
    },
    "main.no_room": {
        "en": "The output is not complete: there is no room left where it is written.",
        "de": "Die Ausgabe ist nicht vollständig: Wo sie geschrieben wird, ist kein Platz mehr.",
    },
    "main.aborted": {
        "en": "Aborted.",
        "de": "Abgebrochen.",
    },
    "confirm.choice": {
        "en": "y/N",
        "de": "j/N",
    },
    "confirm.unclear": {
        "en": "y is yes, n is no.",
        "de": "j heißt ja, n heißt nein.",
    },
    "config.one_problem": {
        "en": "1 problem.",
        "de": "1 Fehler.",
    },
    "config.problems": {
        "en": "{count} problems.",
        "de": "{count} Fehler.",
    },
    "config.shown": {
        "en": "Config file: {file}",
        "de": "Konfigurationsdatei: {file}",
    },
    "config.shown_without_file": {
        "en": "Config file: none",
        "de": "Konfigurationsdatei: keine",
    },
    "chat.welcome": {
        "en": "You are talking to {model}. /help shows the commands, Ctrl+C stops an answer, Ctrl+D leaves.",
        "de": "Am Apparat: {model}. /help zeigt die Befehle, Strg+C bricht eine Antwort ab, Strg+D beendet.",
    },
    "chat.commands": {
        "en": "/models lists the models, /model NAME changes to one, /clear forgets the conversation, /exit leaves.",
        "de": "/models zeigt die Modelle, /model NAME wechselt, /clear vergisst das Gespräch, /exit beendet.",
    },
    "chat.model": {
        "en": "Model: {model}",
        "de": "Modell: {model}",
    },
    "chat.cleared": {
        "en": "The conversation is forgotten.",
        "de": "Das Gespräch ist vergessen.",
    },
    "chat.stopped": {
        "en": "Stopped.",
        "de": "Abgebrochen.",
    },
    "chat.how_to_leave": {
        "en": "Ctrl+D or /exit leaves.",
        "de": "Strg+D oder /exit beendet.",
    },
    "chat.no_key": {
        "en": "There is no API key. Set STELLWERK_API_KEY or use --key; `stellwerk keys create` makes one. "
        "The admin key of this machine's gateway would be in {file}.",
        "de": "Es gibt keinen API-Schlüssel. STELLWERK_API_KEY setzen oder --key angeben; `stellwerk keys create` "
        "erzeugt einen. Der Admin-Schlüssel des Gateways auf diesem Rechner läge in {file}.",
    },
    "chat.no_models": {
        "en": "The gateway offers no model to chat with.",
        "de": "Das Gateway bietet kein Modell zum Chatten an.",
    },
    "chat.bad_url": {
        "en": "{url} is no usable address of a gateway, or the key has characters that no key has.",
        "de": "{url} ist keine brauchbare Adresse eines Gateways, oder der Schlüssel enthält unmögliche Zeichen.",
    },
    "chat.not_running": {
        "en": "No gateway answers at {url}. `stellwerk serve` starts one; --url names another address.",
        "de": "Unter {url} antwortet kein Gateway. `stellwerk serve` startet eins; --url nennt eine andere Adresse.",
    },
    "chat.no_gateway": {
        "en": "What listens at {url} does not answer like a gateway.",
        "de": "Was unter {url} lauscht, antwortet nicht wie ein Gateway.",
    },
    "chat.refused": {
        "en": "The gateway refused ({status}): {message}",
        "de": "Das Gateway lehnt ab ({status}): {message}",
    },
    "chat.failed": {
        "en": "The answer failed: {message}",
        "de": "Die Antwort ist gescheitert: {message}",
    },
    "chat.broken": {
        "en": "The answer broke off before its end.",
        "de": "Die Antwort ist vor ihrem Ende abgerissen.",
    },
    "chat.silent": {
        "en": "Nothing came for {seconds} s.",
        "de": "Seit {seconds} s kam nichts.",
    },
    "chat.not_understood": {
        "en": "The gateway's answer cannot be understood.",
        "de": "Die Antwort des Gateways ist nicht zu verstehen.",
    },
    "ask.prompt": {
        "en": "Prompt: ",
        "de": "Prompt: ",
    },
    "ask.no_prompt": {
        "en": "There is no prompt. It is an argument, standard input, or typed in.",
        "de": "Es fehlt der Prompt: als Argument, über die Standardeingabe oder eingetippt.",
    },
    "ask.not_running": {
        "en": "No gateway answers at {urls}. `stellwerk serve` starts one.",
        "de": "Kein Gateway antwortet unter {urls}. `stellwerk serve` startet eins.",
    },
    "ask.too_long": {
        "en": "The prompt is longer than {limit} MiB.",
        "de": "Der Prompt ist länger als {limit} MiB.",
    },
    "ask.not_utf8": {
        "en": "The prompt is not UTF-8 text.",
        "de": "Der Prompt ist kein UTF-8-Text.",
    },
    "ask.answered": {
        "en": "{model}, {seconds} s",
        "de": "{model}, {seconds} s",
    },
    "ask.asking": {
        "en": "Asking {model} at {url}",
        "de": "Anfrage an {model} unter {url}",
    },
    "ask.instead": {
        "en": "{wanted} is not offered here; {model} answers.",
        "de": "{wanted} gibt es hier nicht; es antwortet {model}.",
    },
    "ask.unknown_model": {
        "en": "The gateway offers no model {model}; {flag} shows all of them.",
        "de": "Ein Modell {model} bietet das Gateway nicht an; {flag} zeigt alle.",
    },
    "flags.unknown": {
        "en": "There is no flag -{name}; -h lists all of them.",
        "de": "Einen Schalter -{name} gibt es nicht; -h zeigt alle.",
    },
    "flags.malformed": {
        "en": "{argument} is no flag; -h lists all of them.",
        "de": "{argument} ist kein Schalter; -h zeigt alle.",
    },
    "flags.no_value": {
        "en": "The flag -{name} needs a value.",
        "de": "Der Schalter -{name} braucht einen Wert.",
    },
    "flags.bad_value": {
        "en": "{value} is no value for the flag -{name}.",
        "de": "{value} ist kein Wert für den Schalter -{name}.",
    },
    "sigo_e.usage": {
        "en": "sigoE asks a model of the running gateway.\n\n  sigoE [flags] [prompt]\n  command | sigoE [flags]\n",
        "de": "sigoE fragt ein Modell des laufenden Gateways.\n\n  sigoE [Schalter] [Prompt]\n"
        "  Befehl | sigoE [Schalter]\n",
    },
    "sigo_e.sessions": {
        "en": "\nSessions in {folder}:",
        "de": "\nSitzungen in {folder}:",
    },
    "sigo_rest.usage": {
        "en": "sigoREST is `stellwerk serve` with the listener for a person's own tools.\n\n  sigoREST [flags]\n",
        "de": "sigoREST ist `stellwerk serve` samt dem Zugang für die eigenen Werkzeuge.\n\n  sigoREST [Schalter]\n",
    },
    "sigo_rest.half_a_certificate": {
        "en": "-cert and -key belong together: give both or none.",
        "de": "-cert und -key gehören zusammen: beide angeben oder keins.",
    },
    "sigo_rest.no_certificate": {
        "en": "{file} does not exist; the gateway makes a certificate of its own in its data folder.",
        "de": "{file} gibt es nicht; das Gateway erzeugt ein eigenes Zertifikat in seinem Datenordner.",
    },
}

PROBLEMS: Mapping[str, str] = {
    "cannot_read": "die Datei lässt sich nicht lesen: {reason}",
    "file_too_large": "die Datei ist größer als {limit} Byte",
    "not_utf8": "die Datei ist kein UTF-8-Text",
    "not_yaml": "das ist kein gültiges YAML: {reason}",
    "too_deep": "tiefer als {limit} Ebenen geschachtelt, oder ein Alias, der sich selbst enthält",
    "too_many": "mehr als {limit} Schlüssel und Werte; Aliase zählen dort, wo sie benutzt werden",
    "bad_tag": "die Marke {tag} ist hier nicht erlaubt",
    "bad_key": "ein Schlüssel muss Text sein",
    "bad_merge": "nur Abschnitte lassen sich mit << einfügen",
    "duplicate_key": "dieser Schlüssel steht schon in Zeile {line}",
    "bad_variable": "nach ${{ müssen der Name einer Variablen und }} folgen; die zwei Zeichen selbst schreibt $${{",
    "missing_variable": "die Umgebungsvariable {name} ist nicht gesetzt",
    "unknown_key": "unbekannter Schlüssel {name}",
    "unknown_key_near": "unbekannter Schlüssel {name}; ist {near} gemeint?",
    "unknown_setting": "zu dieser Umgebungsvariablen gehört keine Einstellung",
    "unknown_setting_near": "zu dieser Umgebungsvariablen gehört keine Einstellung; ist {near} gemeint?",
    "missing_key": "der Schlüssel {name} fehlt",
    "wrong_type": "erwartet: {expected}; gefunden: {found}",
    "not_a_choice": "{value} ist keins von {choices}",
    "not_a_choice_near": "{value} ist keins von {choices}; ist {near} gemeint?",
    "too_small": "{value} ist zu klein: das Mindeste ist {limit}",
    "not_above": "{value} ist zu klein: es muss mehr als {limit} sein",
    "too_big": "{value} ist zu groß: das Höchste ist {limit}",
    "too_few": "mindestens {limit} erwartet, {count} gefunden",
    "too_much": "höchstens {limit} erwartet, {count} gefunden",
    "too_long": "höchstens {limit} Zeichen erwartet, {count} gefunden",
    "text_characters": "der Text enthält Steuerzeichen",
    "bad_form": "{value} passt nicht; erwartet: {form}",
    "bad_name": "der Name passt nicht; erwartet: {form}",
    "public_bind": "{host} ist von anderen Rechnern erreichbar: die Namen, unter denen Clients kommen, gehören in "
    "listen.allowed_hosts, oder listen.behind_proxy wird true, wenn ein Reverse-Proxy sie prüft",
    "ports_past_end": "die {slots} Engine-Plätze brauchen die Ports {first} bis {last}, Ports enden bei 65535",
    "port_taken": "der Port {port} gehört den Engine-Plätzen ({first} bis {last})",
    "not_a_network": "{network} ist weder eine Adresse noch ein Netz: 10.0.0.0/8 ist eins, 10.0.0.7/8 nicht",
    "half_a_certificate": "Zertifikat und Schlüssel gehören zusammen: beide angeben oder keins",
    "target_past_head": "guard.target_bytes ist größer als guard.head_bytes, von dem es ein Teil ist",
    "url_scheme": "die Adresse muss mit http:// oder https:// beginnen",
    "url_host": "die Adresse nennt keinen gültigen Host oder Port",
    "url_userinfo": "die Adresse darf weder Benutzer noch Passwort enthalten; ein Schlüssel gehört in api_key",
    "url_query": "die Adresse darf weder Abfrage noch Fragment enthalten",
    "url_path": "ein Ursprung besteht aus Schema, Host und Port, ohne Pfad",
    "origin_form": "{origin} ist kein Ursprung wie https://app.example.org, http://localhost:3000 oder "
    "chrome-extension://abcdefghijklmnop",
    "origin_port": "Browser lassen den üblichen Port eines Schemas weg: {origin} ohne seinen Port schreiben",
    "origin_wildcard": "{origin} ist kein einzelner Ursprung: * steht allein für alle Seiten, jeder andere wird "
    "ausgeschrieben",
    "origin_null": "null kann nicht erlaubt werden: diesen Ursprung hat jede Datei und jeder abgeschottete Rahmen",
    "url_characters": "die Adresse enthält Leerzeichen oder Zeichen außerhalb von ASCII",
    "unknown_vendor": "kein Anbieter heißt {name}; ein eigener braucht base_url",
    "unknown_vendor_near": "kein Anbieter heißt {name}; ist {near} gemeint? Ein eigener braucht base_url",
    "own_provider": "so heißen die Modelle, die auf diesem Rechner laufen",
    "secret_characters": "der Wert enthält Leerzeichen, Zeilenumbrüche oder Zeichen außerhalb von ASCII",
    "header_name": "diesen Header setzt das Gateway selbst",
    "header_characters": "der Wert enthält Zeilenumbrüche oder Zeichen außerhalb von ASCII",
    "own_engine": "{name} ist eine Engine, die Stellwerk selbst kennt; bitte einen anderen Namen nehmen",
    "unknown_engine": "keine Engine heißt {name}; eine eigene gehört in engines.commands",
    "unknown_placeholder": "{{{name}}} ist kein Platzhalter; es gibt model, host, port, key, context, threads, "
    "parallel und mmproj",
    "weights": "jedes der {targets} Ziele braucht ein Gewicht",
    "model_loop": "{model} führt über seine Ziele zu sich selbst zurück",
}

WORDS: Mapping[str, str] = {
    "or": "oder",
    "null": "null",
    "boolean": "true oder false",
    "integer": "eine ganze Zahl",
    "number": "eine Zahl",
    "text": "Text",
    "list": "eine Liste",
    "section": "ein Abschnitt mit Schlüsseln",
    "host": "ein Hostname oder eine Adresse, ohne Port und Pfad",
    "name": "ein Name: a bis z, 0 bis 9, _ und -, höchstens 32, am Anfang Buchstabe oder Ziffer",
    "model": "der Name eines Modells: 1 bis 200 sichtbare ASCII-Zeichen",
    "target": "der Name eines Modells oder anbieter/modell: 1 bis 240 sichtbare ASCII-Zeichen",
    "header": "der Name eines Headers",
    "path": "ein Pfad",
    "argument": "ein Argument: 1 bis 4096 Zeichen ohne Zeilenumbruch",
    "variable": "der Name einer Umgebungsvariablen",
    "currency": "eine Währung: drei Großbuchstaben",
    "network": "eine Adresse oder ein Netz wie 10.0.0.0/8",
}


def language(environ: Mapping[str, str]) -> str:
    """`de` when the locale of the environment starts with it, `en` otherwise."""
    locale = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return "de" if locale.lower().startswith("de") else "en"


def text(key: str, **values: Any) -> str:
    """The text of `key` in the language of the environment, its placeholders filled."""
    return TEXTS[key][language(os.environ)].format_map(values)


def decimal(value: float, places: int) -> str:
    """With the decimal sign of the language."""
    shown = f"{value:.{places}f}"
    return shown.replace(".", ",") if language(os.environ) == "de" else shown


def describe(problem: "ConfigProblem") -> str:
    """One line for a config problem: place, key and message."""
    message = _german(problem) if language(os.environ) == "de" else problem.message
    return ": ".join(part for part in (problem.where, problem.key, message) if part)


def _german(problem: "ConfigProblem") -> str:
    reason = problem.values.get("reason")
    if isinstance(reason, str):
        problem = replace(problem, values={**problem.values, "reason": translated(reason)})
    return problem.worded(PROBLEMS, WORDS)
