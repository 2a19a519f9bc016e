"""What is said in English of a data folder and of the machine around it, and the German for it, as in `sentences`."""

from collections.abc import Mapping
from typing import Final

FOLDER: Final[Mapping[str, str]] = {
    # --- the accounts, checked
    "The account {} of user {} says {}, its entries {}.": "Das Konto {} des Benutzers {} sagt {}, seine Posten {}.",
    "The account {} of user {} is at {}.": "Das Konto {} des Benutzers {} steht auf {}.",
    "There should be no account {} of user {}.": "Ein Konto {} des Benutzers {} dürfte es nicht geben.",
    "All balances together are {} instead of 0.": "Alle Salden zusammen sind {} statt 0.",
    "There are accounts in {}.": "Es gibt Konten in {}.",
    "The transaction {} ({}) has {} entries that add up to {}.": "Die Buchung {} ({}) hat {} Posten mit der Summe {}.",
    "The transaction {} moves the {} of user {} too.": "Die Buchung {} bewegt auch das Konto {} des Benutzers {}.",
    "The transaction {} is of the hold {}, which took none.": "Die Buchung {} gehört zur Reservierung {}, die keine "
    "nahm.",
    "User {} has {} on hold, his open holds are {}.": "Für Benutzer {} sind {} reserviert, seine offenen "
    "Reservierungen sind {}.",
    "User {} has no account for his open holds of {}.": "Benutzer {} hat kein Konto für seine offenen Reservierungen "
    "von {}.",
    "The {} hold {} of {} at a cost of {} was made {} times, closed {} times, and charged {}.": "Die Reservierung {1} "
    "({0}) über {2} mit Kosten von {3} wurde {4}-mal angelegt, {5}-mal geschlossen und hat {6} belastet.",
    "The budget window {} has spent {} and holds {}, its open holds {}.": "Der Budgetzeitraum {} hat {} ausgegeben und "
    "{} reserviert, seine offenen Reservierungen sind {}.",
    "The budget window {} is gone, its holds are {}.": "Der Budgetzeitraum {} ist weg, seine Reservierungen sind {}.",
    # --- the data folder, before anything else
    "STELLWERK_ADMIN_KEY is too short: it needs at least {} characters.": "STELLWERK_ADMIN_KEY ist zu kurz: Mindestens "
    "{} Zeichen sind nötig.",
    "STELLWERK_ADMIN_KEY is too long: at most {} characters.": "STELLWERK_ADMIN_KEY ist zu lang: höchstens {} Zeichen.",
    "STELLWERK_ADMIN_KEY may hold only visible ASCII characters, and no space.": "STELLWERK_ADMIN_KEY darf nur "
    "sichtbare ASCII-Zeichen enthalten und kein Leerzeichen.",
    "STELLWERK_ADMIN_KEY is easy to guess. Use a random one, for example from `openssl rand -base64 "
    "32`.": "STELLWERK_ADMIN_KEY ist leicht zu erraten. Besser ein zufälliger, etwa von `openssl rand -base64 32`.",
    "The data folder {} cannot be created: {}.": "Der Datenordner {} lässt sich nicht anlegen: {}.",
    "The data folder {} cannot be written.": "Der Datenordner {} ist nicht beschreibbar.",
    "The data folder {} is in use by {}. Stop it, or choose another folder.": "Der Datenordner {} ist in Benutzung: "
    "{}. Erst muss er frei sein; oder es braucht einen anderen Ordner.",
    "process {}": "Prozess {}",
    "another process": "ein anderer Prozess",
    "{} is missing, and without it no stored API key can be checked. Restore it from a backup.": "{} fehlt, und ohne "
    "diese Datei lässt sich kein gespeicherter API-Schlüssel prüfen. Sie muss aus einer Sicherung zurück.",
    "{} cannot be read or made: {}.": "{} lässt sich weder lesen noch anlegen: {}.",
    "{} is damaged. Restore it from a backup.": "{} ist beschädigt und muss aus einer Sicherung zurück.",
    "The ledger is kept in {}, and the configuration says {}. Set money.currency to {}; balances cannot be "
    "converted.": "Die Buchführung rechnet in {}, in der Konfiguration steht {}. money.currency muss {} sein; Guthaben "
    "lassen sich nicht umrechnen.",
    "The database {} cannot be opened: {}.": "Die Datenbank {} lässt sich nicht öffnen: {}.",
    "The database {} cannot be read: {}.": "Die Datenbank {} lässt sich nicht lesen: {}.",
    "The database {} was written by a newer Stellwerk (schema {}, this one knows {}). Install that version again, or "
    "restore the backup that was made before the upgrade.": "Die Datenbank {} stammt von einem neueren Stellwerk "
    "(Schema {}, dieses kennt {}). Entweder wieder dessen Version einspielen, oder die Sicherung von vor dem Upgrade.",
    "The database {} is damaged ({}). Put a backup of that file in its place, together with no {} and {}, or move it "
    "away to begin with an empty one.": "Die Datenbank {} ist beschädigt ({}). Eine Sicherung an ihre Stelle legen, "
    "ohne {} und {}; oder sie wegräumen, um leer zu beginnen.",
    "The database {} cannot be copied before its upgrade: {}.": "Die Datenbank {} lässt sich vor dem Upgrade nicht "
    "kopieren: {}.",
    "The database {} cannot be brought to schema {} and {}: {}.": "Die Datenbank {} lässt sich nicht auf Schema {} "
    "bringen ({}): {}.",
    # --- listeners
    "Cannot listen on {}: {}.": "Auf {} lässt sich nicht lauschen: {}.",
    "{} A real Ollama has the same port; ollama_cloud_proxy.port takes another.": "{} Ein echtes Ollama hat denselben "
    "Port; ollama_cloud_proxy.port nimmt einen anderen.",
    "There are no keys for Ollama's cloud: set OLLAMA_API_KEYS, or ollama_cloud_proxy.keys.": "Für Ollamas Cloud gibt "
    "es keine Schlüssel: OLLAMA_API_KEYS oder ollama_cloud_proxy.keys setzen.",
    "ollama_cloud_proxy.base_url leads to this gateway itself.": "ollama_cloud_proxy.base_url führt zu diesem Gateway "
    "selbst.",
    "The provider {} cannot be used; the log has the reason.": "Der Anbieter {} lässt sich nicht benutzen; den Grund "
    "nennt das Protokoll.",
    "The certificates in {} cannot be read or written: {}.": "Die Zertifikate in {} lassen sich nicht lesen oder "
    "schreiben: {}.",
    "The private key in {} does not belong to the certificate in {}.": "Der private Schlüssel in {} gehört nicht zum "
    "Zertifikat in {}.",
    "The certificate in {} ended on {}.": "Das Zertifikat in {} ist am {} abgelaufen.",
    "The certificate in {} cannot be used: {}.": "Das Zertifikat in {} lässt sich nicht benutzen: {}.",
    "{} was not made by Stellwerk. Name it in the configuration to use it, or move it away to get a new one.": "{} "
    "stammt nicht von Stellwerk. Entweder in der Konfiguration nennen, oder wegräumen, damit es ein neues gibt.",
    "{}. Remove {} and restart to get a new certificate authority; clients have to trust the new one.": "{}. {} "
    "entfernen und neu starten ergibt eine neue Zertifizierungsstelle; ihr müssen die Clients dann vertrauen.",
    "{} holds no certificate": "{} enthält kein Zertifikat",
    "{} is missing or is not the key of {}": "{} fehlt oder ist nicht der Schlüssel von {}",
    "{} cannot be written: {}.": "{} lässt sich nicht schreiben: {}.",
    "{} holds no {} that could be used: it has to be PEM, without password.": "{} enthält nichts Brauchbares ({}): "
    "nötig ist PEM ohne Passwort.",
    "certificate": "Zertifikat",
    "private key": "privater Schlüssel",
    "The certificate in {} cannot be read: {}.": "Das Zertifikat in {} ist nicht zu lesen: {}.",
    "The private key in {} cannot be read: {}.": "Der private Schlüssel in {} ist nicht zu lesen: {}.",
    "The certificate {} does not exist.": "Das Zertifikat {} gibt es nicht.",
    "The private key {} does not exist.": "Den privaten Schlüssel {} gibt es nicht.",
    # --- reasons of the system
    "another program listens there": "dort lauscht ein anderes Programm",
    "this is not an address of this machine": "das ist keine Adresse dieses Rechners",
    "ports below 1024 need more rights": "Ports unter 1024 brauchen mehr Rechte",
    "the host name is not known": "den Hostnamen gibt es nicht",
    "Disk quota exceeded": "die Quote ist erschöpft",
    "File exists": "es gibt sie schon",
    "File name too long": "der Name ist zu lang",
    "Input/output error": "Ein-/Ausgabefehler",
    "Is a directory": "das ist ein Ordner",
    "No space left on device": "auf dem Datenträger ist kein Platz mehr",
    "No such file or directory": "Datei oder Ordner gibt es nicht",
    "Not a directory": "das ist kein Ordner",
    "Permission denied": "keine Berechtigung",
    "Read-only file system": "der Datenträger ist schreibgeschützt",
}
