"""The help of the commands in German, by its English, which stands at the commands themselves."""

from collections.abc import Mapping

GERMAN: Mapping[str, str] = {
    # --- said of several commands
    "Where the gateway listens; without it the one of this machine.": "Wo das Gateway zu erreichen ist; sonst das auf "
    "diesem Rechner.",
    "Data folder of the gateway.": "Der Datenordner des Gateways.",
    "The data folder of the gateway.": "Der Datenordner des Gateways.",
    "Print JSON.": "JSON ausgeben.",
    "API key; better in STELLWERK_API_KEY.": "API-Schlüssel; besser in STELLWERK_API_KEY.",
    "An admin's API key; better in STELLWERK_ADMIN_KEY.": "API-Schlüssel eines Admins; besser in STELLWERK_ADMIN_KEY.",
    "How many at most.": "Höchstens so viele.",
    "In place of the config's; 0 is unlimited.": "Statt des konfigurierten Werts; 0 heißt unbegrenzt.",
    "The most to spend in a day, week or month.": "So viel darf es am Tag, in der Woche oder im Monat höchstens "
    "kosten.",
    "The only models that may be used.": "Nur diese Modelle dürfen benutzt werden.",
    "The user, by e-mail address or number.": "Der Benutzer, mit E-Mail-Adresse oder Nummer.",
    "user calls models, viewer looks on, admin may do all.": "user ruft Modelle auf, viewer sieht zu, admin darf "
    "alles.",
    "Instructions for the model.": "Anweisungen für das Modell.",
    "The model; without it a local one.": "Das Modell; sonst ein lokales.",
    "The config file; found as serve does without it.": "Die Konfigurationsdatei; sonst die, die serve fände.",
    # --- stellwerk
    "One gateway in front of every language model: cloud vendors, Ollama and your own GGUF files.": "Ein Gateway vor "
    "allen Sprachmodellen: Cloud-Anbieter, Ollama und eigene GGUF-Dateien.",
    "Show the version and exit.": "Die Version zeigen.",
    "Show this message and exit.": "Diese Hilfe zeigen.",
    "Install completion for the current shell.": "Die Vervollständigung für diese Shell einrichten.",
    "Show completion for the current shell, to copy it or customize the installation.": "Die Vervollständigung für "
    "diese Shell ausgeben, zum Kopieren oder Anpassen.",
    # --- serve
    "Run the gateway until Ctrl+C or SIGTERM; SIGHUP reads the config file again.": "Das Gateway betreiben, bis Strg+C "
    "oder SIGTERM kommt; SIGHUP liest die Konfigurationsdatei neu.",
    "Address to listen on, in place of listen.host.": "Adresse des Gateways, statt listen.host.",
    "Port to listen on, in place of listen.port.": "Port des Gateways, statt listen.port.",
    "The config file.": "Die Konfigurationsdatei.",
    "The folder for everything that Stellwerk keeps.": "Der Ordner für alles, was Stellwerk aufhebt.",
    "Take the commands of `stellwerk shell` in the same terminal.": "Im selben Terminal die Befehle von `stellwerk "
    "shell` annehmen.",
    # --- chat, ask
    "Talk to a model of the running gateway.": "Mit einem Modell des laufenden Gateways reden.",
    "Ask this, print the answer and exit.": "Das fragen und nur die Antwort ausgeben.",
    "Ask a model of the running gateway one question.": "Einem Modell des laufenden Gateways eine Frage stellen.",
    "The question; without it standard input.": "Die Frage; sonst die Standardeingabe.",
    "Go on with the chat of this name.": "Das Gespräch dieses Namens fortsetzen.",
    "The most tokens of the answer.": "Höchstens so viele Tokens in der Antwort.",
    "How freely the model chooses its words.": "Wie frei das Modell seine Worte wählt.",
    "Seconds for all attempts together.": "Sekunden für alle Versuche zusammen.",
    "The most attempts.": "Höchstens so viele Versuche.",
    "List the models by provider, with prices.": "Die Modelle nach Anbietern zeigen, mit Preisen.",
    "Show what is known of the model.": "Zeigen, was über das Modell bekannt ist.",
    "Say nothing beside the answer.": "Nichts außer der Antwort ausgeben.",
    "Where the gateway listens; without it the one of this machine, then http://127.0.0.1:9080.": "Wo das Gateway zu "
    "erreichen ist; sonst das auf diesem Rechner, dann http://127.0.0.1:9080.",
    # --- ocr
    "Read the text of documents: JPEG, PNG, WebP, BMP, TIFF and PDF.\n\nEnds with 1 when one of them could not be "
    "read, with 75 when one was not ready after --timeout. Ctrl+C stops\nwaiting; the gateway goes on, and `stellwerk "
    "jobs wait` prints what it read.": "Den Text von Dokumenten lesen: JPEG, PNG, WebP, BMP, TIFF und PDF.\n\nEndet "
    "mit 1, wenn eins davon nicht zu lesen war, mit 75, wenn eins nach --timeout nicht fertig war. Strg+C beendet das\n"
    "Warten; das Gateway liest weiter, und `stellwerk jobs wait` gibt aus, was es gelesen hat.",
    "Files, https URLs, or - for standard input.": "Dateien, URLs mit https, oder - für die Standardeingabe.",
    "How finely to look; without it as the gateway is told.": "Wie genau hingesehen wird; sonst wie im Gateway "
    "eingestellt.",
    "As text, as Markdown, or as JSON with the place of each line.": "Als Text, als Markdown oder als JSON mit dem Ort "
    "jeder Zeile.",
    "Write a file for each document there.": "Dorthin je Dokument eine Datei schreiben.",
    "Only these pages, from 1.": "Nur diese Seiten, von 1 an.",
    "A model that sees; without it the gateway's own engine.": "Ein Modell, das sieht; sonst die eigene Engine des "
    "Gateways.",
    "In the queue.": "In der Warteschlange.",
    "The most seconds to wait.": "Höchstens so viele Sekunden warten.",
    "Show no progress.": "Keinen Fortschritt zeigen.",
    # --- jobs
    "List, wait for, cancel and repeat requests that are answered later.": "Jobs, also Anfragen, die später "
    "beantwortet werden: zeigen, abwarten, abbrechen, wiederholen.",
    "List jobs, newest first: those of the key, or all for an administrator.": "Die Jobs zeigen, die neuesten zuerst: "
    "die des Schlüssels, einem Admin alle.",
    "Only those in this state.": "Nur die in diesem Zustand.",
    "Only those of this model.": "Nur die dieses Modells.",
    "Only those that were queued before this one.": "Nur die, die vor diesem eingereiht wurden.",
    "Show a job: its state, its place in the line, its attempts.": "Einen Job zeigen: Zustand, Platz in der "
    "Warteschlange, Versuche.",
    "The job.": "Der Job.",
    "Wait until jobs have ended and print their answers, in the order in which they were named.\n\nEnds with 1 when "
    "one of them has failed, with 75 when one has not ended after --timeout. Ctrl+C stops waiting; the\njobs go "
    "on.": "Warten, bis Jobs zu Ende sind, und ihre Antworten ausgeben, in der Reihenfolge, in der sie genannt "
    "sind.\n\nEndet mit 1, wenn einer davon gescheitert ist, mit 75, wenn einer nach --timeout nicht zu Ende ist. "
    "Strg+C beendet\ndas Warten; die Jobs laufen weiter.",
    "The job, or several.": "Der Job, oder mehrere.",
    "Print the whole answers.": "Die vollständigen Antworten ausgeben.",
    "Cancel jobs, also those that run. What has ended stays as it is.": "Jobs abbrechen, auch laufende. Was zu Ende "
    "ist, bleibt, wie es ist.",
    "Queue jobs again that were given up after their last attempt.": "Jobs erneut einreihen, die nach dem letzten "
    "Versuch aufgegeben wurden.",
    # --- models
    "Search, fetch, load and show the models of this machine.": "Die Modelle dieses Rechners suchen, holen, laden und "
    "zeigen.",
    "Search the hub for models in GGUF files, the most downloaded first.": "Beim Hub nach Modellen in GGUF-Dateien "
    "suchen; was am häufigsten geladen wurde, zuerst.",
    "What to look for.": "Wonach gesucht wird.",
    "Fetch a model from the hub, with all its parts and its projector. Ctrl+C pauses it.": "Ein Modell vom Hub holen, "
    "mit allen Teilen und seinem Projektor. Strg+C hält den Download an.",
    "user/repository[:quantisation], the address of its page, or name[:tag] of Ollama's "
    "library.": "user/repository[:quantisierung], die Adresse seiner Seite, oder name[:tag] aus Ollamas Bibliothek.",
    "This file of the repository.": "Diese Datei des Repositorys.",
    "List the models of this machine, and which of them are loaded.": "Die Modelle dieses Rechners zeigen, und welche "
    "davon geladen sind.",
    "Show a model with all that its file says, vocabularies left out.": "Ein Modell zeigen, mit allem, was in seiner "
    "Datei steht, außer dem Wortschatz.",
    "The model, by id or by the name of its file.": "Das Modell, mit seiner ID oder dem Namen seiner Datei.",
    "Load a model into a slot of the running gateway.": "Ein Modell auf einen Platz des laufenden Gateways laden.",
    "The port of a slot; without it any.": "Der Port eines Platzes; sonst irgendeiner.",
    "Tokens.": "Tokens.",
    "0 is one less than cores.": "0 heißt: einer weniger als Kerne.",
    "Without it, what the file is.": "Sonst das, was die Datei ist.",
    "The projector, by the name of its file.": "Der Projektor, mit dem Namen seiner Datei.",
    "Load it at every start, and never make room.": "Bei jedem Start laden und nie verdrängen.",
    "Do not wait until it is loaded.": "Nicht warten, bis es geladen ist.",
    "Unload a model; requests that run get half a minute to end.": "Ein Modell entladen; laufende Anfragen haben eine "
    "halbe Minute, um fertig zu werden.",
    "The model, or the port of its slot.": "Das Modell, oder der Port seines Platzes.",
    "Have a model loaded at every start and never make room for another.": "Ein Modell anheften: Es wird bei jedem "
    "Start geladen und nie verdrängt.",
    "Pin it no longer.": "Nicht mehr anheften.",
    "Delete a model's files, or a projector. What is loaded has to be unloaded first.": "Die Dateien eines Modells "
    "löschen, oder einen Projektor. Was geladen ist, muss vorher entladen werden.",
    "Do not ask.": "Nicht nachfragen.",
    "List the downloads, newest first; or pause, resume or cancel one.": "Die Downloads zeigen, die neuesten zuerst; "
    "oder einen anhalten, fortsetzen oder abbrechen.",
    "The id of the download.": "Die ID des Downloads.",
    "List the models that clients asked for and that there are not, the latest first.": "Die Modelle zeigen, nach "
    "denen Clients gefragt haben und die es nicht gibt, die neuesten zuerst.",
    "Forget them all.": "Alle vergessen.",
    # --- console
    "Watch and steer a running gateway.": "Einem laufenden Gateway zusehen und es steuern.",
    "An admin's API key or login token; better in STELLWERK_API_KEY, where no list of processes shows "
    "it.": "API-Schlüssel oder Login-Token eines Admins; besser in STELLWERK_API_KEY, wo keine Prozessliste ihn zeigt.",
    # --- users
    "Make, list, change and disable users.": "Benutzer anlegen, zeigen, ändern und sperren.",
    "Make a user. A key is made with `stellwerk keys create NAME --user EMAIL`.": "Einen Benutzer anlegen. Einen "
    "Schlüssel erzeugt `stellwerk keys create NAME --user EMAIL`.",
    "The e-mail address, which nobody else has.": "Die E-Mail-Adresse, die sonst niemand hat.",
    "payg pays from a balance, sub by subscription, admin nothing.": "payg zahlt aus einem Guthaben, sub im "
    "Abonnement, admin nichts.",
    "The name, for lists.": "Der Name, für Übersichten.",
    "Money to begin with.": "Das Anfangsguthaben.",
    "Ask for a password to log in with.": "Nach einem Passwort für die Anmeldung fragen.",
    "Read a password from standard input.": "Ein Passwort von der Standardeingabe lesen.",
    "List the users, newest first.": "Die Benutzer zeigen, die neuesten zuerst.",
    "Show all that is known of a user: limits, balance, budget and keys.": "Alles zeigen, was über einen Benutzer "
    "bekannt ist: Grenzen, Guthaben, Budget und Schlüssel.",
    "Change a user; `none` takes a limit, a budget, the name or the list of models away.": "Einen Benutzer ändern; "
    "`none` entfernt eine Grenze, ein Budget, den Namen oder die Liste der Modelle.",
    "Another e-mail address.": "Eine andere E-Mail-Adresse.",
    "Shut a user out: every key and login stops working within two seconds. The accounts stay.": "Einen Benutzer "
    "sperren: Binnen zwei Sekunden gilt kein Schlüssel und keine Anmeldung mehr. Die Konten bleiben.",
    "Let a user in again, with the same keys; logins begin anew.": "Einen Benutzer wieder freigeben, mit denselben "
    "Schlüsseln; anmelden muss er sich neu.",
    "Set a user's password, asked for here, and end all of the user's logins.": "Das Passwort eines Benutzers setzen, "
    "nach dem hier gefragt wird, und alle seine Anmeldungen beenden.",
    "Take the password away: only keys work then.": "Das Passwort entfernen: Dann gelten nur noch Schlüssel.",
    # --- keys
    "Make, list, change and revoke API keys.": "API-Schlüssel erzeugen, zeigen, ändern und widerrufen.",
    "Make a key and show it, this once. Only the key goes to standard output.": "Einen Schlüssel erzeugen und dieses "
    "eine Mal zeigen. Auf die Standardausgabe kommt nur der Schlüssel.",
    "What the key is for; shown in lists and reports.": "Wofür der Schlüssel ist; steht in Übersichten und Berichten.",
    "Whose key; without one, the gateway's.": "Wessen Schlüssel es ist; sonst der des Gateways.",
    "The only addresses that may use it; it opens nothing more.": "Nur von diesen Adressen gilt er; mehr öffnet das "
    "nicht.",
    "The highest priority that its requests may ask for.": "Die höchste Priorität, um die seine Anfragen bitten "
    "dürfen.",
    "How long it is good: 45m, 12h, 30d, 52w.": "Wie lange er gilt: 45m, 12h, 30d, 52w.",
    "List the keys, oldest first. The keys themselves are not known any more.": "Die Schlüssel zeigen, die ältesten "
    "zuerst. Wie sie lauten, ist nicht mehr bekannt.",
    "Show all that is known of a key.": "Alles zeigen, was über einen Schlüssel bekannt ist.",
    "The key's id, or its name when no other has it.": "Die ID des Schlüssels, oder sein Name, wenn kein anderer so "
    "heißt.",
    "Change a key; `none` takes a limit away, a lifetime counts from now. It holds within two seconds.": "Einen "
    "Schlüssel ändern; `none` entfernt eine Grenze, eine Lebensdauer zählt ab jetzt. Es gilt binnen zwei Sekunden.",
    "What the key is for.": "Wofür der Schlüssel ist.",
    "Revoke a key for good. A running gateway refuses it within two seconds.": "Einen Schlüssel endgültig widerrufen. "
    "Ein laufendes Gateway lehnt ihn binnen zwei Sekunden ab.",
    "Also when it is the last admin key.": "Auch wenn es der letzte Admin-Schlüssel ist.",
    # --- webhooks
    "Tell other programs what happens in the gateway.": "Anderen Programmen sagen, was im Gateway geschieht.",
    "List the webhooks, oldest first. Their secrets are not shown any more.": "Die Webhooks zeigen, die ältesten "
    "zuerst. Ihre Geheimnisse werden nicht mehr gezeigt.",
    "Add a webhook and show its signing secret, this once. Only the secret goes to standard output.\n\nWithout --event "
    "it is told of every finished request.": "Einen Webhook hinzufügen und sein Signaturgeheimnis dieses eine Mal "
    "zeigen. Auf die Standardausgabe kommt nur das Geheimnis.\n\nOhne --event hört er von jeder beendeten Anfrage.",
    "Where messages are sent: http or https.": "Wohin die Nachrichten gehen: http oder https.",
    "What it is told, once or more: request.finished, generate.requested, budget.reached, key.parked, engine.crashed, "
    "job.finished.": "Was er hört, auch mehrmals: request.finished, generate.requested, budget.reached, key.parked, "
    "engine.crashed, job.finished.",
    "What it is for.": "Wofür er ist.",
    "Send the images of requests too.": "Auch die Bilder der Anfragen senden.",
    "Send the keys of requests in clear, not their mask.": "Die Schlüssel der Anfragen im Klartext senden, nicht "
    "maskiert.",
    "Remove a webhook with its messages and their log.": "Einen Webhook entfernen, mit seinen Nachrichten und deren "
    "Protokoll.",
    "The number of the webhook.": "Die Nummer des Webhooks.",
    "Switch a webhook on, also one that the gateway has switched off.": "Einen Webhook einschalten, auch einen, den "
    "das Gateway ausgeschaltet hat.",
    "Switch a webhook off; what happens meanwhile it is never told.": "Einen Webhook ausschalten; was inzwischen "
    "geschieht, hört er nie.",
    "Make a new signing secret and show it, this once. For a day messages are signed with the old one too.": "Ein "
    "neues Signaturgeheimnis erzeugen und dieses eine Mal zeigen. Einen Tag lang wird auch mit dem alten signiert.",
    "Send a test message now, with or without a running gateway, and say what came of it.": "Jetzt eine Testnachricht "
    "senden, mit oder ohne laufendes Gateway, und sagen, was daraus wurde.",
    "List the messages of a webhook and what came of them, newest first.": "Die Nachrichten eines Webhooks zeigen und "
    "was aus ihnen wurde, die neuesten zuerst.",
    "Send a message again that has failed or waits, under the same id.": "Eine Nachricht noch einmal senden, die "
    "gescheitert ist oder wartet, unter derselben ID.",
    "The id of the message: msg_…": "Die ID der Nachricht: msg_…",
    # --- shell
    "Make keys and webhooks by the commands of Go Ollama API, typed or piped.": "Schlüssel und Webhooks mit den "
    "Befehlen von Go Ollama API verwalten, getippt oder aus einer Pipe.",
    "Of each generated key; 0 is unlimited.": "Von jedem erzeugten Schlüssel; 0 heißt unbegrenzt.",
    # --- usage
    "Show calls, tokens and costs. Days begin at midnight in UTC.": "Anfragen, Tokens und Kosten zeigen. Tage beginnen "
    "um Mitternacht UTC.",
    "What a line stands for.": "Wofür eine Zeile steht.",
    "From when on: an age, or a day in UTC.": "Ab wann: ein Alter, oder ein Tag in UTC.",
    "Until when; that day is counted too. Else now.": "Bis wann; dieser Tag zählt mit. Sonst bis jetzt.",
    "Only calls of one user.": "Nur Anfragen dieses Benutzers.",
    "Only calls with one key.": "Nur Anfragen mit diesem Schlüssel.",
    "Only calls of one model, as clients name it.": "Nur Anfragen an dieses Modell, wie Clients es nennen.",
    # --- ledger
    "Balances, top-ups, prices; do the accounts add up?": "Guthaben, Aufladungen, Preise; gehen die Konten auf?",
    "Show what a user has, and every booking that changed it.": "Zeigen, was ein Benutzer hat, und jede Buchung, die "
    "es geändert hat.",
    "How many lines, the newest first.": "Wie viele Zeilen, die neuesten zuerst.",
    "Only lines before this one.": "Nur Zeilen vor dieser.",
    "Book money that came in.": "Geld buchen, das eingegangen ist.",
    "More than 0, such as 10.50.": "Mehr als 0, etwa 10,50.",
    "What it is for; stays in the accounts.": "Wofür es ist; bleibt in den Büchern.",
    "Book a correction, with a note that says why. No balance falls below zero.": "Eine Berichtigung buchen, mit einer "
    "Notiz, die sagt, warum. Kein Guthaben fällt unter null.",
    "What is added, or with a minus taken away.": "Was dazukommt, oder mit einem Minus weggeht.",
    "Why; stays in the accounts.": "Warum; bleibt in den Büchern.",
    "List what everybody has.": "Zeigen, was jeder hat.",
    "Prove that the accounts add up; exits with 1 and what is wrong where they do not.": "Nachrechnen, ob die Konten "
    "aufgehen; endet sonst mit 1 und sagt, was nicht stimmt.",
    "Own prices of models, each from a date on.": "Eigene Preise von Modellen, jeder ab einem Datum.",
    "List the prices that count now.": "Die Preise zeigen, die jetzt gelten.",
    "Also those of the past and of the future.": "Auch vergangene und künftige.",
    "Add a price; what was not stated is free of charge, and 0 is allowed. Older prices stay in the list.": "Einen "
    "Preis hinzufügen; was nicht genannt ist, ist kostenlos, auch 0 ist erlaubt. Ältere Preise bleiben in der Liste.",
    "A model, provider/model, or a pattern with * in it.": "Ein Modell, anbieter/modell, oder ein Muster mit *.",
    "The ledger's, or USD.": "Die der Buchführung, oder USD.",
    "When it begins to count, in UTC; else now.": "Ab wann das gilt, in UTC; sonst ab jetzt.",
    "Why.": "Warum.",
    "End a model's own prices; the published one counts again.": "Die eigenen Preise eines Modells beenden; dann gilt "
    "wieder der veröffentlichte.",
    # --- signups
    "Decide about strangers who asked to become users.": "Über Fremde entscheiden, die Benutzer werden möchten.",
    "List the requests that wait, newest first.": "Die Anfragen zeigen, die warten, die neuesten zuerst.",
    "Also those that were decided.": "Auch die, über die entschieden ist.",
    "Make the user and a key, which is shown this once; only the key goes to standard output.": "Den Benutzer anlegen "
    "und einen Schlüssel erzeugen, der dieses eine Mal gezeigt wird; auf die Standardausgabe kommt nur der Schlüssel.",
    "The number of the request.": "Die Nummer der Anfrage.",
    "The gateway's address for users, for the mail.": "Die Adresse des Gateways für Benutzer, für die Mail.",
    "Put the key into the mail texts too, instead of a placeholder.": "Den Schlüssel auch in die Mailtexte setzen, "
    "statt eines Platzhalters.",
    "Turn a request down.": "Eine Anfrage ablehnen.",
    # --- audit
    "Show who changed what, and check that nothing of it was altered.": "Zeigen, wer was geändert hat, und prüfen, ob "
    "daran nichts verfälscht wurde.",
    "How many, the newest first.": "Wie viele, die neuesten zuerst.",
    "Only changes of one thing, such as user:7 or key:abc.": "Nur Änderungen an einer Sache, etwa user:7 oder key:abc.",
    "Only records before this one.": "Nur Einträge vor diesem.",
    "Check that no record was altered or taken out; exits with 1 where one was.": "Prüfen, ob ein Eintrag verändert "
    "oder entfernt wurde; endet dann mit 1.",
    # --- upstream-keys
    "Show the state of every key for an upstream: ready, cooling until it comes back, or parked.": "Den Zustand jedes "
    "Schlüssels für einen Anbieter zeigen: bereit, pausiert bis zu seiner Rückkehr, oder stillgelegt.",
    "Only the keys of this provider.": "Nur die Schlüssel dieses Anbieters.",
    "Key of an admin or viewer; better in STELLWERK_API_KEY.": "Schlüssel eines Admins oder Viewers; besser in "
    "STELLWERK_API_KEY.",
    # --- import
    "Take over data of other gateways.": "Daten anderer Gateways übernehmen.",
    "Take over keys, calls and webhooks from the apiKeys.db of a Go Ollama API; the keys stay good as they "
    "are.": "Schlüssel, Anfragen und Webhooks aus der apiKeys.db einer Go Ollama API übernehmen; die Schlüssel gelten "
    "unverändert weiter.",
    "The database; it is only read.": "Die Datenbank; sie wird nur gelesen.",
    "Whose the keys become; without one, nobody's.": "Wem die Schlüssel dann gehören; sonst niemandem.",
    "Say what would be done, and change nothing.": "Nur sagen, was geschähe, und nichts ändern.",
    "Of the rows, show only those that are refused.": "Von den Zeilen nur die zeigen, die abgelehnt werden.",
    "Take over the statistics from the usage.db of an Ollama Cloud Proxy.": "Die Statistik aus der usage.db eines "
    "Ollama Cloud Proxy übernehmen.",
    "The provider whose keys these are, in the order of the config.": "Der Anbieter, dessen Schlüssel das sind, in der "
    "Reihenfolge der Konfiguration.",
    # --- config
    "Write, check and show the settings (stellwerk.yaml).": "Die Einstellungen (stellwerk.yaml) schreiben, prüfen und "
    "zeigen.",
    "Write an annotated config file with every key and its default, and a JSON Schema for editors beside it.": "Eine "
    "kommentierte Konfigurationsdatei mit jeder Einstellung und ihrer Vorgabe schreiben, dazu ein JSON-Schema für "
    "Editoren.",
    "The file to write.": "Die Datei, die geschrieben wird.",
    "Replace a file that exists.": "Eine vorhandene Datei ersetzen.",
    "Check the config file and the STELLWERK_* variables; exit with 78 when something is wrong.": "Die "
    "Konfigurationsdatei und die Variablen STELLWERK_* prüfen; endet mit 78, wenn etwas falsch ist.",
    "The data folder, where a config file may be.": "Der Datenordner, in dem eine Konfigurationsdatei liegen kann.",
    "Print the JSON Schema of the config file.": "Das JSON-Schema der Konfigurationsdatei ausgeben.",
    "Print the settings in use, secrets as ***, and where each one that was set comes from.": "Die geltenden "
    "Einstellungen ausgeben, Geheimnisse als ***, und woher jede gesetzte kommt.",
}
