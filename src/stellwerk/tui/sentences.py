"""What a gateway and its lower layers say in English, and the German for it.

Each `{}` stands for what differs; the German has them in the same order, or numbers them.
"""

from collections.abc import Mapping
from typing import Final

GATEWAY: Final[Mapping[str, str]] = {
    # --- who asks
    "Invalid API key. This gateway does not know it; 'stellwerk keys create NAME' makes one.": "Diesen API-Schlüssel "
    "kennt das Gateway nicht; `stellwerk keys create NAME` erzeugt einen.",
    "{} Send a key as 'Authorization: Bearer <key>'; 'stellwerk keys create NAME' makes one.": "{} `stellwerk keys "
    "create NAME` erzeugt einen Schlüssel.",
    "Missing Authorization header.": "Es fehlt der API-Schlüssel.",
    "Invalid Authorization format.": "Der Header Authorization hat die falsche Form.",
    "The API key has been revoked. Ask for another one.": "Der API-Schlüssel ist widerrufen; es braucht einen neuen.",
    "The API key has expired. Ask for another one.": "Der API-Schlüssel ist abgelaufen; es braucht einen neuen.",
    "The API key was made for a role that its user does not have any more. Make a new one.": "Der API-Schlüssel ist "
    "für eine Rolle, die sein Benutzer nicht mehr hat; es braucht einen neuen.",
    "User account disabled. Ask the operator of this gateway.": "Der Benutzer ist gesperrt; Auskunft gibt, wer das "
    "Gateway betreibt.",
    "This key may not be used from your address.": "Von dieser Adresse aus gilt der API-Schlüssel nicht.",
    "Invalid token": "Das Token ist ungültig.",
    "Token has expired": "Das Token ist abgelaufen.",
    "The login has ended.": "Diese Anmeldung ist beendet.",
    "Admin access required": "Das darf nur ein Admin.",
    "The role '{}' may not do this.": "Die Rolle {} darf das nicht.",
    "This API key may not use the model '{}'.": "Mit diesem API-Schlüssel geht das Modell {} nicht.",
    "This needs an API key.": "Das braucht einen API-Schlüssel.",
    "The account is not there any more.": "Diesen Benutzer gibt es nicht mehr.",
    "The API key is not there any more.": "Diesen API-Schlüssel gibt es nicht mehr.",
    "The gateway is not ready yet.": "Das Gateway ist noch nicht bereit.",
    "The gateway failed. The operator's log has the reason.": "Im Gateway ist etwas schiefgegangen; den Grund nennt "
    "sein Protokoll.",
    "The key is not taken: it is {}.": "Der Schlüssel wird nicht angenommen: {}.",
    # --- calls
    "The model '{}' does not exist. Did you mean {}? GET /v1/models lists the models there are.": "Ein Modell {} gibt "
    "es nicht; gemeint ist vielleicht {}. `stellwerk ask --list` zeigt alle.",
    "The model '{}' does not exist. GET /v1/models lists the models there are.": "Ein Modell {} gibt es nicht; "
    "`stellwerk ask --list` zeigt alle.",
    "The model '{}' does not support {}.": "Das Modell {} kann das nicht ({}).",
    "The model '{}' cannot be used for this.": "Das Modell {} kann das nicht.",
    "This model's provider is not available at the moment.": "Der Anbieter dieses Modells ist gerade nicht verfügbar.",
    "Insufficient balance: a part of it is set aside for your calls that are still running. Try again when they have "
    "ended, or top up the account.": "Das Guthaben reicht nicht: Ein Teil ist für laufende Anfragen reserviert. Später "
    "noch einmal versuchen, oder aufladen.",
    "Insufficient balance. Top up the account, or ask for fewer output tokens.": "Das Guthaben reicht nicht. Aufladen, "
    "oder weniger Tokens in der Antwort verlangen.",
    "The {} does not suffice for this request. It begins anew at {}.": "Für diese Anfrage reicht das Budget nicht "
    "({}). Es beginnt neu: {}.",
    "Rate limit exceeded. Try again in {} s. The limit of {} is reached.": "Das Limit ist erreicht ({1}); in {0} s "
    "noch einmal versuchen.",
    "The gateway is busy.": "Das Gateway ist gerade ausgelastet.",
    "The gateway is stopping.": "Das Gateway wird gerade beendet.",
    "The gateway is shutting down.": "Das Gateway wird gerade beendet.",
    "Too many requests are waiting for this model. Try again later.": "Auf dieses Modell warten schon zu viele "
    "Anfragen; bitte später noch einmal.",
    "The model did not get round to this request in time.": "Das Modell ist zu dieser Anfrage nicht rechtzeitig "
    "gekommen.",
    "The upstream cannot be reached.": "Der Anbieter ist nicht zu erreichen.",
    "All connections to the upstream are in use.": "Alle Verbindungen zum Anbieter sind belegt.",
    "The upstream is overloaded.": "Der Anbieter ist überlastet.",
    "The upstream's rate limit is reached.": "Das Limit des Anbieters ist erreicht.",
    "All keys for the model's upstream have reached their limits.": "Alle Schlüssel für den Anbieter dieses Modells "
    "haben ihr Limit erreicht.",
    "The upstream did not accept the gateway's credentials for this model.": "Der Anbieter hat den Schlüssel des "
    "Gateways für dieses Modell nicht angenommen.",
    "The gateway's credit with the upstream is used up.": "Das Guthaben des Gateways beim Anbieter ist aufgebraucht.",
    "The upstream does not know this model.": "Der Anbieter kennt dieses Modell nicht.",
    "The request is too large for the upstream.": "Die Anfrage ist dem Anbieter zu groß.",
    "The upstream rejected the request.": "Der Anbieter hat die Anfrage abgelehnt.",
    "The upstream reports a conflict.": "Der Anbieter meldet einen Widerspruch.",
    "The upstream failed with status {}.": "Der Anbieter ist mit Status {} gescheitert.",
    "The upstream broke off in the middle of its answer.": "Der Anbieter hat mitten in der Antwort abgebrochen.",
    "The gateway cannot reach its storage.": "Das Gateway erreicht seinen Speicher nicht.",
    "The upstream could not be reached in time.": "Der Anbieter war nicht rechtzeitig zu erreichen.",
    "The upstream did not answer in time.": "Der Anbieter hat nicht rechtzeitig geantwortet.",
    "The upstream's TLS certificate or protocol is not valid.": "Zertifikat oder Protokoll (TLS) des Anbieters ist "
    "nicht gültig.",
    "The upstream's list of models cannot be read.": "Die Modellliste des Anbieters ist nicht zu lesen.",
    "The model's upstream has failed several times in a row and is left alone for a moment.": "Der Anbieter dieses "
    "Modells ist mehrmals nacheinander gescheitert und hat einen Augenblick Ruhe.",
    "The model '{}' takes no images, and no other model that you may use does.": "Das Modell {} nimmt keine Bilder, "
    "und kein anderes erlaubtes Modell tut es.",
    "The model '{}' takes no sound, and no other model that you may use does.": "Das Modell {} nimmt keinen Ton, und "
    "kein anderes erlaubtes Modell tut es.",
    "The model '{}' calls no tools, and no other model that you may use does.": "Das Modell {} ruft keine Werkzeuge "
    "auf, und kein anderes erlaubtes Modell tut es.",
    "The model '{}' has a context that is too short for this, and no other model that you may use does.": "Der Kontext "
    "des Modells {} ist dafür zu kurz, und der jedes anderen erlaubten Modells auch.",
    "The model '{}' {}, and no other model that you may use does.": "Das Modell {} kann das nicht ({}), und kein "
    "anderes erlaubtes Modell kann es.",
    "Rate limit exceeded, please try again later": "Das Limit ist erreicht; bitte später noch einmal.",
    "Nothing came for {} s.": "Seit {} s kam nichts.",
    # --- models of this machine
    "The model '{}' cannot be loaded: it needs {} MiB of memory, {} MiB are free and {} MiB could be freed.": "Für das "
    "Modell {} reicht der Speicher nicht: Es braucht {} MiB, frei sind {} MiB, und {} MiB ließen sich frei machen.",
    "There is no room for the model '{}'.": "Für das Modell {} reicht der Speicher nicht.",
    "No model made room for '{}' in time: they are in use.": "Für {} wurde nicht rechtzeitig ein Platz frei: Alle "
    "geladenen Modelle werden gebraucht.",
    "The model '{}' is busy.": "Das Modell {} ist beschäftigt.",
    "The model '{}' was not loaded in time.": "Das Modell {} war nicht rechtzeitig geladen.",
    "The model '{}' is still being loaded.": "Das Modell {} wird noch geladen.",
    "The model '{}' was unloaded while it was being loaded or used.": "Das Modell {} wurde entladen, während es "
    "geladen oder gebraucht wurde.",
    "There is no local model '{}'.": "Ein lokales Modell {} gibt es nicht; `stellwerk models list` zeigt alle.",
    "There is a model '{}' already.": "Ein Modell {} gibt es schon.",
    "The model '{}' cannot be deleted: {}.": "Das Modell {} lässt sich nicht löschen: {}.",
    "Too many models are being loaded.": "Es werden schon zu viele Modelle geladen.",
    "The models folder has no such projector.": "Diesen Projektor gibt es im Modellordner nicht.",
    "There is no slot {}; the slots are {} to {}.": "Einen Platz {} gibt es nicht; es gibt {} bis {}.",
    "There is no such slot.": "Diesen Platz gibt es nicht; `stellwerk models list` zeigt, wo Modelle geladen sind.",
    "A loaded model uses that projector; unload it first.": "Ein geladenes Modell benutzt diesen Projektor; erst muss "
    "es entladen werden.",
    "The load failed for an internal reason.": "Das Laden ist im Gateway selbst gescheitert.",
    "The gateway stopped.": "Das Gateway wurde beendet.",
    "There is no such load.": "Ein solches Laden gibt es nicht.",
    "Say which slot or which model is to be unloaded.": "Es fehlt, welcher Platz oder welches Modell entladen werden "
    "soll.",
    "{} cannot be used: {}.": "{} lässt sich nicht benutzen: {}.",
    "A model's name has up to 100 letters, digits, dots, hyphens and underscores, and begins with a letter or "
    "digit.": "Ein Modell heißt mit bis zu 100 Buchstaben, Ziffern, Punkten, Binde- und Unterstrichen, am Anfang "
    "Buchstabe oder Ziffer.",
    "The model '{}' cannot be copied: {}.": "Das Modell {} lässt sich nicht kopieren: {}.",
    "The model '{}' cannot be loaded: {}.": "Das Modell {} lässt sich nicht laden: {}.",
    # --- downloads
    "There is no such download.": "Diesen Download gibt es nicht; `stellwerk models downloads` zeigt alle.",
    "Another file of that name is in the models folder; delete or rename it first.": "Im Modellordner liegt schon eine "
    "andere Datei dieses Namens; erst muss sie weg oder anders heißen.",
    "A file called {} has appeared in the models folder.": "Im Modellordner ist eine Datei {} aufgetaucht.",
    "Something that is no file has the name of the partial file.": "Den Namen der halben Datei hat etwas, das keine "
    "Datei ist.",
    "Another process is fetching this file.": "Ein anderer Prozess holt diese Datei gerade.",
    "Another download is making a file of that name.": "Ein anderer Download holt gerade eine Datei dieses Namens.",
    "The hub has this file no more.": "Der Hub hat diese Datei nicht mehr.",
    "Nobody here knows any more where this model comes from.": "Woher dieses Modell kommt, ist nicht mehr bekannt.",
    "Too many downloads are waiting; let some end or cancel them.": "Es warten schon zu viele Downloads; erst müssen "
    "welche fertig oder abgebrochen sein.",
    "That download is over.": "Dieser Download ist zu Ende.",
    "That download is done; delete the model instead.": "Dieser Download ist fertig; `stellwerk models rm` löscht das "
    "Modell.",
    "That download is not over; cancel it first.": "Dieser Download ist nicht zu Ende; erst muss er abgebrochen "
    "werden.",
    "The disk of the models folder is full. Make room, then resume the download.": "Der Datenträger mit dem "
    "Modellordner ist voll. Erst Platz schaffen, dann den Download fortsetzen.",
    "The disk is full.": "Der Datenträger ist voll.",
    "The hub has no such repository.": "Dieses Repository hat der Hub nicht.",
    "The hub has no such repository, or it is private and the token does not open it.": "Dieses Repository hat der Hub "
    "nicht, oder es ist privat und hub.token öffnet es nicht.",
    "That repository has no such revision.": "Diesen Stand hat das Repository nicht.",
    "That is no name of a repository.": "So heißt kein Repository.",
    "A search has 1 to {} characters.": "Eine Suche hat 1 bis {} Zeichen.",
    "A repository of the hub is named as user/repository.": "Ein Repository des Hubs heißt user/repository.",
    "Too many questions to the hub are open.": "Es sind schon zu viele Fragen an den Hub offen.",
    "The hub cannot be reached.": "Der Hub ist nicht zu erreichen.",
    "That repository has no complete model in a file of that name.": "In einer Datei dieses Namens hat das Repository "
    "kein vollständiges Modell.",
    "That repository has no complete model in that quantisation.{}": "In dieser Quantisierung hat das Repository kein "
    "vollständiges Modell.{}",
    "That repository holds no GGUF model; look for one with GGUF in its name.": "In diesem Repository ist kein "
    "GGUF-Modell; oft gibt es eins mit GGUF im Namen.",
    "Two files of that model have the same name.": "Zwei Dateien dieses Modells heißen gleich.",
    "That file's name cannot be used here: letters, digits, dots, dashes and underscores, then .gguf.": "So kann eine "
    "Datei hier nicht heißen: Buchstaben, Ziffern, Punkte, Binde- und Unterstriche, dann .gguf.",
    "The hub does not say how large that file is.": "Der Hub sagt nicht, wie groß diese Datei ist.",
    "Only GGUF files can be fetched.": "Holen lassen sich nur GGUF-Dateien.",
    "That is no path of a file.": "Das ist kein Pfad einer Datei.",
    "That is no quantisation; Q4_K_M is one.": "Das ist keine Quantisierung; Q4_K_M ist eine.",
    "pull model manifest: the registry cannot be asked": "Ollamas Bibliothek ist nicht zu erreichen.",
    "This model is in a form that only an Ollama can run: what is fetched here is one GGUF file.": "Dieses Modell kann "
    "nur ein Ollama ausführen: Geholt wird hier eine einzelne GGUF-Datei.",
    # --- users, keys, money
    "There is no such user.": "Diesen Benutzer gibt es nicht.",
    "There is no such key.": "Diesen Schlüssel gibt es nicht.",
    "There are {} users already.": "Es gibt schon {} Benutzer; mehr können es nicht sein.",
    "A name has at most 100 printable characters.": "Ein Name hat höchstens 100 sichtbare Zeichen.",
    "A name has 1 to 100 printable characters.": "Ein Name hat 1 bis 100 sichtbare Zeichen.",
    "Models are at most 1000 names of 1 to 200 printable characters.": "Modelle sind höchstens 1000 Namen aus 1 bis "
    "200 sichtbaren Zeichen.",
    "A budget is an amount from 0 to 1000000000.": "Ein Budget ist ein Betrag von 0 bis 1000000000.",
    "{} is a number from 0 to {}.": "{} ist eine Zahl von 0 bis {}.",
    "Too many passwords are being checked at the moment.": "Gerade werden zu viele Passwörter geprüft.",
    "The tier is one of: payg, sub.": "Der Tarif ist payg oder sub.",
    "Too many requests are waiting.": "Es warten schon zu viele Anfragen.",
    "A message has at most {} characters.": "Eine Nachricht hat höchstens {} Zeichen.",
    "The amount must be more than 0.": "Der Betrag muss größer als 0 sein.",
    "The amount must not be 0.": "Der Betrag darf nicht 0 sein.",
    "The balance would be too large.": "So groß kann ein Guthaben nicht werden.",
    "The note is longer than {} characters.": "Die Notiz ist länger als {} Zeichen.",
    "The ledger is kept in {}, not in {}.": "Die Buchführung rechnet in {}, nicht in {}.",
    "State at least one price; 0 makes the model free of charge.": "Mindestens ein Preis ist nötig; 0 macht das Modell "
    "kostenlos.",
    "'{}' must be a decimal number, zero or more, such as 0.15.": "{} muss eine Dezimalzahl ab 0 sein, etwa 0.15.",
    "'{}' is too fine: prices are kept in steps of 10^-12 for one unit.": "{} ist zu fein: Preise haben Schritte von "
    "10^-12 je Einheit.",
    "'{}' is too high.": "{} ist zu hoch.",
    "There is no unit '{}' for prices.": "Eine Einheit {} für Preise gibt es nicht.",
    "The price named by '{}' is stated twice, in two units.": "Der Preis {} ist zweimal genannt, in zwei Einheiten.",
    "A price that is withdrawn cannot be stated as well.": "Ein Preis, der endet, kann nicht zugleich genannt sein.",
    "There are {} prices already; no more can be added.": "Es gibt schon {} Preise; mehr können es nicht sein.",
    "'model' must be a name of up to {} printable characters.": "Das Modell ist ein Name aus höchstens {} sichtbaren "
    "Zeichen.",
    "'note' must have at most {} printable characters.": "Die Notiz hat höchstens {} sichtbare Zeichen.",
    "'valid_from' is not a time.": "Das ist keine Zeit, ab der ein Preis gelten kann.",
    "'currency' must be {}, the ledger's, or USD.": "Die Währung ist {}, die der Buchführung, oder USD.",
    "A price must not be below zero, nor above a million for one unit.": "Ein Preis liegt zwischen null und einer "
    "Million je Einheit.",
    "The change is too large to be recorded.": "Die Änderung ist zu groß für das Audit-Log.",
    "The hub broke off too often.": "Der Hub hat zu oft abgebrochen.",
    "The hub broke off in the middle of the file.": "Der Hub hat mitten in der Datei abgebrochen.",
    "The hub sends a file of another size than it announced.": "Der Hub sendet eine Datei anderer Größe als "
    "angekündigt.",
    "The hub sends more than it announced.": "Der Hub sendet mehr als angekündigt.",
    "The hub sent another part of the file than was asked for.": "Der Hub hat einen anderen Teil der Datei gesendet "
    "als verlangt.",
    "The file has changed at the hub.": "Die Datei hat sich beim Hub geändert.",
    "The hub stopped sending.": "Vom Hub kommt nichts mehr.",
    "The hub failed.": "Der Hub hat einen Fehler.",
    "The hub refuses the file; check `hub.token`.": "Der Hub gibt die Datei nicht her; hub.token prüfen.",
    "The hub refuses the file with status {}.": "Der Hub gibt die Datei nicht her (Status {}).",
    "The hub leads to an address without encryption.": "Der Hub führt zu einer Adresse ohne Verschlüsselung.",
    "The hub leads to an address that cannot be used.": "Der Hub führt zu einer Adresse, die sich nicht benutzen "
    "lässt.",
    "The hub leads from one address to the next without end.": "Der Hub führt ohne Ende von einer Adresse zur "
    "nächsten.",
    "The file does not have the checksum that the hub announced.": "Die Datei hat nicht die Prüfsumme, die der Hub "
    "angekündigt hat.",
    "The models folder cannot be used ({}).": "Der Modellordner lässt sich nicht benutzen ({}).",
    "The hub has no such part of the file.": "Diesen Teil der Datei hat der Hub nicht.",
    "That model is gated: accept its conditions at the hub and set `hub.token`.": "Für dieses Modell gelten "
    "Bedingungen: beim Hub annehmen und hub.token setzen.",
    "The hub asks to wait.": "Der Hub bittet zu warten.",
    "The disk of the models folder has {} GB left, but {} GB are needed ({} GB of them stay free).": "Auf dem "
    "Datenträger mit dem Modellordner sind noch {} GB frei; nötig sind {} GB ({} GB davon bleiben frei).",
    "The hub does not say which revision of the model it has.": "Der Hub sagt nicht, welchen Stand des Modells er hat.",
    "The hub did not answer in time.": "Der Hub hat nicht rechtzeitig geantwortet.",
    "The hub is not asked: HF_HUB_OFFLINE is set.": "Der Hub wird nicht gefragt: HF_HUB_OFFLINE ist gesetzt.",
    "The hub answered something that cannot be understood.": "Die Antwort des Hubs ist nicht zu verstehen.",
    "A model of the hub is named as user/repository, optionally with :quantisation.": "Ein Modell des Hubs heißt "
    "user/repository, auch mit :quantisierung.",
    "That revision is none that a hub could have.": "Einen solchen Stand kann kein Hub haben.",
    "Only a hub's models can be named by an address.": "Mit einer Adresse lassen sich nur Modelle eines Hubs nennen.",
    "A quantisation stands at the end: user/repository:QUANT.": "Die Quantisierung steht am Ende: "
    "user/repository:QUANT.",
    "The registry did not answer in time.": "Ollamas Bibliothek hat nicht rechtzeitig geantwortet.",
    "The registry answered something that cannot be understood.": "Die Antwort von Ollamas Bibliothek ist nicht zu "
    "verstehen.",
    "The registry asks to wait.": "Ollamas Bibliothek bittet zu warten.",
    "pull model manifest: the registry refuses access": "Ollamas Bibliothek verweigert den Zugriff.",
    # --- jobs and documents
    "Too many jobs arrive at once. Try again later.": "Gerade kommen zu viele Jobs an; bitte später noch einmal.",
    "An idempotency key has 1 to 200 printable characters.": "Ein Idempotenzschlüssel hat 1 bis 200 sichtbare Zeichen.",
    "This idempotency key was used for another request. Take a new key for a new request.": "Dieser "
    "Idempotenzschlüssel gehört zu einer anderen Anfrage.",
    "This gateway does not do '{}' any more.": "So etwas ({}) macht dieses Gateway nicht mehr.",
    "This request cannot be put off.": "Diese Anfrage lässt sich nicht aufschieben.",
    "The result has more than {} bytes.": "Das Ergebnis hat mehr als {} Byte.",
    "There is no such job.": "Diesen Job gibt es nicht; `stellwerk jobs list` zeigt sie.",
    "There is no such job that still runs.": "Dieser Job läuft nicht mehr.",
    "Only a job that was given up can be queued again.": "Nur ein aufgegebener Job lässt sich erneut einreihen.",
    "The job has not ended yet.": "Der Job ist noch nicht zu Ende.",
    "There is no answer of this job, or it is not kept any more.": "Von diesem Job gibt es keine Antwort, oder sie ist "
    "nicht mehr aufgehoben.",
    "Queue is full, please try again later": "Die Warteschlange ist voll; bitte später noch einmal.",
    "The gateway's disk is nearly full: jobs and files are not taken at the moment.": "Die Platte des Gateways ist "
    "fast voll: Es nimmt gerade keine Jobs und Dateien an.",
    "There is nothing at POST {}.": "Unter POST {} gibt es nichts.",
    "The answer broke off.": "Die Antwort ist abgerissen.",
    "Too many jobs are being watched. Try again later.": "Zu viele Jobs werden beobachtet; bitte später noch einmal.",
    "At most {} jobs can be queued in one step.": "Auf einmal lassen sich höchstens {} Jobs einreihen.",
    "A client id has at most 128 printable characters.": "Eine Client-ID hat höchstens 128 sichtbare Zeichen.",
    "The labels of a job have at most {} characters.": "Die Angaben zu einem Job haben höchstens {} Zeichen.",
    "The header '{}' takes 1 to {} printable characters.": "Der Header {} hat 1 bis {} sichtbare Zeichen.",
    "'{}' must be an https URL, a data URL, Base64, or the id of a file.": "{} ist eine https-URL, eine data-URL, "
    "Base64 oder die ID einer Datei.",
    "The data URL in '{}' cannot be read.": "Die data-URL in {} ist nicht zu lesen.",
    "The Base64 in '{}' is damaged.": "Das Base64 in {} ist beschädigt.",
    "Reading pages needs {}, which is not installed: pip install 'stellwerk[ocr]'": "Zum Lesen von Seiten fehlt {}: "
    "pip install 'stellwerk[ocr]'",
    "The longer side must have between 1 and {} pixels.": "Die längere Seite hat 1 bis {} Pixel.",
    "The reader has answered something else than was asked.": "Die OCR-Engine hat etwas anderes geantwortet als "
    "gefragt.",
    "The document is empty.": "Das Dokument ist leer.",
    "The document has {} bytes; {} are allowed (setting ocr.max_bytes).": "Das Dokument hat {} Byte; erlaubt sind {} "
    "(ocr.max_bytes).",
    "The document has {}, counted from 0: there is no page {}.": "Das Dokument hat {}, gezählt ab 0: Eine Seite {} "
    "gibt es nicht.",
    "The document has {} pages; there is no page {}.": "Das Dokument hat {} Seiten; eine Seite {} gibt es nicht.",
    "{} pages": "{} Seiten",
    "1 page": "1 Seite",
    "At most {} pages can be read in one job.": "In einem Job lassen sich höchstens {} Seiten lesen.",
    "The document's address did not give a document.": "Unter der Adresse des Dokuments ist kein Dokument.",
    "The URL did not answer in time.": "Unter der URL kam nicht rechtzeitig eine Antwort.",
    "The URL was redirected more than {} times.": "Die URL leitet mehr als {}-mal um.",
    "The host of the URL could not be reached in time.": "Der Host der URL war nicht rechtzeitig zu erreichen.",
    "The host of the URL cannot be reached.": "Der Host der URL ist nicht zu erreichen.",
    "The host name of the URL has no address at the moment.": "Der Name in der URL hat gerade keine Adresse.",
    "The TLS certificate or protocol of the URL's host is not valid.": "Zertifikat oder Protokoll (TLS) des Hosts der "
    "URL ist nicht gültig.",
    "There is no such document.": "Dieses Dokument gibt es nicht.",
    "Too many pages wait to be read.": "Es warten schon zu viele Seiten.",
    "Pages are not read any more: the gateway is stopping.": "Das Gateway wird gerade beendet und liest keine Seiten "
    "mehr.",
    "An administrator has stopped the reader of pages over this one.": "Ein Admin hat das Lesen dieser Seite beendet.",
    "The page could not be read: its reader ended over it.": "Die Seite war nicht zu lesen: Die OCR-Engine ist an ihr "
    "abgestürzt.",
    "The page could not be read ({}).": "Die Seite war nicht zu lesen ({}).",
    "Reading the page took too long and was stopped.": "Das Lesen der Seite hat zu lange gedauert und wurde "
    "abgebrochen.",
    "The mode must be one of {}.": "Die OCR-Stufe ist eine von {}.",
    # --- what a limit counts
    "{} requests per minute for this key": "{} Anfragen je Minute für diesen Schlüssel",
    "{} requests per minute, {} at once, for this key": "{} Anfragen je Minute, {} auf einmal, für diesen Schlüssel",
    "{} tokens per minute for this key": "{} Tokens je Minute für diesen Schlüssel",
    "{} concurrent requests for this key": "{} gleichzeitige Anfragen für diesen Schlüssel",
    "{} requests per minute for this user": "{} Anfragen je Minute für diesen Benutzer",
    "{} requests per minute, {} at once, for this user": "{} Anfragen je Minute, {} auf einmal, für diesen Benutzer",
    "{} tokens per minute for this user": "{} Tokens je Minute für diesen Benutzer",
    "{} concurrent requests for this user": "{} gleichzeitige Anfragen für diesen Benutzer",
    "{} requests per minute for this model": "{} Anfragen je Minute für dieses Modell",
    "{} requests per minute, {} at once, for this model": "{} Anfragen je Minute, {} auf einmal, für dieses Modell",
    "{} tokens per minute for this model": "{} Tokens je Minute für dieses Modell",
    "{} concurrent requests for this model": "{} gleichzeitige Anfragen für dieses Modell",
    "'{}' or '{}'": "'{}' oder '{}'",
    " It has: {}.": " Es hat: {}.",
}
