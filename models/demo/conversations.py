"""Turns the question files into endless, noisy training conversations.  Says nothing about the network."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """One thing the model knows: its answer and the ways to ask for it."""

    name: str
    answer: str
    german: bool
    ask: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Strangers:
    """Words and templates of one language for questions the model has to refuse."""

    refusal: str
    german: bool
    words: dict[str, list[str]]
    templates: list[str]
    sentences: list[str]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question and its only right answer."""

    question: str
    answer: str


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def words(text: str) -> list[str]:
    return [word for part in text.replace("\n", ",").split(",") if (word := part.strip())]


def load_intents() -> list[Intent]:
    """All intents, English first."""
    intents = []
    for language in ("en", "de"):
        text = (HERE / f"questions.{language}.yaml").read_text(encoding="utf-8")
        entries: dict[str, dict[str, str]] = yaml.safe_load(text)
        intents += [
            Intent(
                name=name,
                answer=entry["answer"],
                german=language == "de",
                ask=tuple(lines(entry["ask"])),
                held_out=tuple(lines(entry["held_out"])),
            )
            for name, entry in entries.items()
        ]
    return intents


def load_strangers() -> tuple[list[Strangers], list[str]]:
    """The out-of-scope material of both languages, and the system prompts."""
    content: dict[str, Any] = yaml.safe_load((HERE / "out_of_scope.yaml").read_text(encoding="utf-8"))
    strangers = [
        Strangers(
            refusal=content[language]["refusal"],
            german=language == "de",
            words={kind: words(content[language][kind]) for kind in ("nouns", "subjects", "verbs", "adjectives")},
            templates=lines(content[language]["templates"]),
            sentences=lines(content[language]["sentences"]),
        )
        for language in ("en", "de")
    ]
    return strangers, lines(content["systems"])


def choose(line: str, dice: random.Random) -> str:
    """One of the sentences a line stands for."""
    return tidy(CHOICE.sub(lambda found: dice.choice(found.group(1).split("|")), line))


def first_choice(line: str) -> str:
    """The sentence a line stands for when nothing is drawn: used for counting and for the evaluation."""
    return tidy(CHOICE.sub(lambda found: found.group(1).split("|")[0], line))


def tidy(sentence: str) -> str:
    return re.sub(r"\s+", " ", sentence).strip()


def plain(sentence: str) -> str:
    """A sentence without what does not make it another sentence."""
    return sentence.lower().rstrip("?!. ")


# Rule, and what its matches may be said instead: {0} is what the rule caught.
REPHRASINGS: list[tuple[re.Pattern[str], list[str]]] = [
    (
        re.compile(r"^(?:How do I|How can I|How to|I want to) (.+?)\??$"),
        [
            "How do I {0}?", "How can I {0}?", "How could I {0}?", "How would I {0}?", "How should I {0}?",
            "How does one {0}?", "How do you {0}?", "How might I {0}?", "What is the way to {0}?",
            "What do I have to do to {0}?", "What do I do to {0}?", "I'd like to {0}", "I would like to {0}",
            "I am trying to {0}", "I'm trying to {0}", "We want to {0}", "Explain how to {0}", "Show me how to {0}",
            "Tell me how to {0}", "Can you explain how to {0}?", "Could you tell me how to {0}?", "how to {0}",
            "how {0}", "Can I {0}?", "Is it possible to {0}?", "Is there a way to {0}?", "What steps {0}?",
            "Do you know how to {0}?", "I have no idea how to {0}", "I need to {0}", "Help me {0}",
            "What is the easiest way to {0}?", "How am I supposed to {0}?", "any idea how to {0}?",
        ],
    ),
    (
        re.compile(r"^(?:What is|What's|What are) (.+?)\??$"),
        [
            "What's {0}?", "Explain {0}", "Tell me {0}", "Tell me about {0}", "Can you tell me what {0} is?",
            "Could you tell me {0}?", "What would {0} be?", "I'd like to know {0}", "I want to know about {0}",
            "Do you know {0}?", "what {0}", "whats {0}", "what is {0} exactly?", "{0}?", "remind me what {0} is",
        ],
    ),
    (
        re.compile(r"^(?:Do you support|Is there|Are there|Do you have) (.+?)\??$"),
        [
            "Is there {0}?", "Do you have {0}?", "Does Stellwerk have {0}?", "Does it have {0}?", "Has it got {0}?",
            "Does it support {0}?", "Is {0} supported?", "Is {0} available?", "Can I get {0}?", "{0}?",
            "Does it come with {0}?", "I am looking for {0}", "Does Stellwerk support {0}?", "any {0}?",
        ],
    ),
    (
        re.compile(r"^(?:Where is|Where are|Where do I find|Where can I find) (.+?)\??$"),
        [
            "Where do I find {0}?", "Where can I find {0}?", "Where would I find {0}?", "I cannot find {0}",
            "Where did {0} go?", "Show me {0}", "I am looking for {0}", "where {0}", "Can you tell me where {0} is?",
        ],
    ),
    (re.compile(r"^Which (.+?)\??$"), ["What {0}?", "which {0}", "Tell me which {0}", "Can you say which {0}?"]),
    (re.compile(r"^What ((?!is|are|'s).+?)\??$"), ["Which {0}?", "what {0}", "Tell me what {0}"]),
    (
        re.compile(r"^(?:Can I|May I) (.+?)\??$"),
        ["Could I {0}?", "Am I able to {0}?", "Is it possible to {0}?", "May I {0}?", "I want to {0}", "can we {0}?"],
    ),
    (re.compile(r"^(?:Can you) (.+?)\??$"), ["Could you {0}?", "Are you able to {0}?", "Will you {0}?", "can u {0}"]),
    (
        re.compile(r"^(?:Does it|Does Stellwerk|Does this) (.+?)\??$"),
        ["Will it {0}?", "Does the gateway {0}?", "Can Stellwerk {0}?", "Can it {0}?", "Does Stellwerk {0}?"],
    ),
    (
        re.compile(r"^Wie (\w+)e ich (.+?)\??$"),
        [
            "Wie kann ich {1} {0}en?", "Wie soll ich {1} {0}en?", "Wie könnte ich {1} {0}en?",
            "Wie muss ich {1} {0}en?", "Ich möchte {1} {0}en", "Ich will {1} {0}en", "Kann ich {1} {0}en?",
            "Wie {0}t man {1}?",
            "Was muss ich tun, um {1} zu {0}en?", "Zeig mir, wie ich {1} {0}e", "Erkläre mir, wie ich {1} {0}e",
            "Weißt du, wie ich {1} {0}e?", "Wie würde ich {1} {0}en?", "Lässt sich {1} {0}en?", "wie {0} ich {1}",
            "Sag mir, wie man {1} {0}t", "Wie kann man {1} {0}en?", "Ich versuche {1} zu {0}en",
        ],
    ),
    (
        re.compile(r"^(Was|Wo|Wer|Welche[rsnm]?|Warum|Wie) (.+?)\??$"),
        [
            "{0} {1} denn?", "{0} {1} eigentlich?", "{0} {1} genau?", "Sag mir, {0} {1}", "{0} {1} bitte?",
            "Weißt du, {0} {1}?", "Kannst du mir sagen, {0} {1}?", "Ich möchte wissen, {0} {1}", "Und {0} {1}?",
        ],
    ),
    (
        re.compile(r"^(?:Kann ich) (.+?)\??$"),
        ["Könnte ich {0}?", "Ist es möglich, dass ich {0}?", "Darf ich {0}?", "Kann man {0}?", "Ich will {0}"],
    ),
]  # fmt: skip

SYNONYMS = {
    "model": ["LLM", "language model"],
    "models": ["LLMs", "language models"],
    "server": ["service"],
    "gateway": ["server"],
    "create": ["make", "generate"],
    "show": ["display"],
    "delete": ["remove"],
    "answer": ["reply", "response"],
    "answers": ["replies", "responses", "output"],
    "config": ["configuration"],
    "folder": ["directory"],
    "use": ["work with", "utilise"],
    "find": ["locate"],
    "program": ["application", "tool"],
    "machine": ["computer", "laptop", "pc"],
    "cost": ["price"],
    "costs": ["expenses", "spending"],
    "crashes": ["dies", "falls over"],
    "stop": ["shut down", "halt"],
    "start": ["launch", "run"],
    "add": ["include", "bring in"],
    "load": ["import", "open"],
    "file": ["files"],
    "key": ["token"],
    "Modell": ["LLM", "Sprachmodell"],
    "Modelle": ["LLMs", "Sprachmodelle"],
    "Schlüssel": ["Key", "API-Key"],
    "Server": ["Dienst", "Gateway"],
    "Rechner": ["Computer", "PC", "Laptop"],
    "Ordner": ["Verzeichnis"],
    "Antwort": ["Ausgabe"],
    "Programm": ["Tool", "Anwendung"],
}

BEFORE = {
    False: [
        "please ", "hey, ", "hi, ", "hello, ", "hi! ", "Hello! ", "so ", "ok ", "okay, ", "um ", "well, ", "and ",
        "now ", "but ", "quick question: ", "one question: ", "I wonder, ", "sorry, ", "excuse me, ", "tell me, ",
        "just asking: ", "I am new here. ", "I just installed Stellwerk. ", "I have a question. ", "Good morning. ",
        "Thanks. ", "I read the README. ", "My colleague asks: ", "In short: ", "Next question: ", "Stellwerk: ",
    ],
    True: [
        "bitte ", "sag mal, ", "kurze Frage: ", "also ", "du, ", "hallo, ", "hi, ", "Hallo! ", "ok, ", "und ", "aber ",
        "eine Frage: ", "Entschuldigung, ", "Guten Tag. ", "Ich bin neu hier. ",
        "Ich habe gerade Stellwerk installiert. ", "Danke. ", "Nächste Frage: ", "Kurz gesagt: ",
        "Mal was anderes: ", "Ich habe eine Frage. ",
    ],
}  # fmt: skip
AFTER = {
    False: [
        " please", " thanks", "??", "!", " now", " here", " in Stellwerk", " with Stellwerk", " with this", " exactly",
        " for me", "...", " ?", " today", " quickly", " again", " on my machine", " then", " anyway", " please?",
    ],
    True: [
        " bitte", "??", "!", " hier", " denn", " eigentlich", " in Stellwerk", " mit Stellwerk", " genau", " ?", "...",
        " jetzt", " nochmal", " danke", " bei Stellwerk", " damit",
    ],
}  # fmt: skip
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})
FLAT_UMLAUTS = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "s"})


def rephrase(sentence: str, dice: random.Random) -> str:
    """The same question in another form, where a rule fits."""
    for rule, forms in dice.sample(REPHRASINGS, len(REPHRASINGS)):
        found = rule.match(sentence)
        if found:
            return dice.choice(forms).format(*found.groups())
    return sentence


def swap_synonyms(sentence: str, dice: random.Random) -> str:
    """Some words replaced by words that mean the same here."""
    return " ".join(
        dice.choice(SYNONYMS[word]) if word in SYNONYMS and dice.random() < 0.5 else word
        for word in sentence.split(" ")
    )


def mistype(sentence: str, dice: random.Random) -> str:
    """One letter swapped, lost, doubled or hit beside."""
    if len(sentence) < 5:
        return sentence
    at = dice.randrange(1, len(sentence) - 2)
    before, one, two, after = sentence[:at], sentence[at], sentence[at + 1], sentence[at + 2 :]
    return before + dice.choice([two + one, two, one + one + two, dice.choice(LETTERS) + two, one]) + after


def spoil(sentence: str, german: bool, dice: random.Random) -> str:
    """What people do to a sentence when they type it in a hurry."""

    def maybe(chance: float, change: Callable[[str], str]) -> None:
        nonlocal sentence
        if dice.random() < chance:
            sentence = change(sentence)

    if dice.random() < 0.12:
        return sentence
    maybe(0.35, lambda text: text.rstrip("?!. "))
    maybe(0.18, lambda text: dice.choice(BEFORE[german]) + (text[:1].lower() + text[1:]))
    maybe(0.14, lambda text: text.rstrip("?!.") + dice.choice(AFTER[german]))
    maybe(0.06, lambda text: drop_word(text, dice))
    maybe(0.38, str.lower)
    maybe(0.035, str.upper)
    if german:
        maybe(0.1, lambda text: text.translate(UMLAUTS))
        maybe(0.04, lambda text: text.translate(FLAT_UMLAUTS))
    for chance in (0.22, 0.1, 0.05):
        maybe(chance, lambda text: mistype(text, dice))
    return tidy(sentence)


def drop_word(sentence: str, dice: random.Random) -> str:
    parts = sentence.split()
    if len(parts) > 3:
        parts.pop(dice.randrange(len(parts)))
    return " ".join(parts)


class Conversations:
    """Draws training conversations from one seeded source of chance."""

    def __init__(self, seed: int, *, strange_share: float = 0.34) -> None:
        self.dice = random.Random(seed)
        self.intents = load_intents()
        self.strangers, self.systems = load_strangers()
        self.strange_share = strange_share
        self.reserved = {plain(line) for intent in self.intents for line in intent.held_out}

    def turn(self, *, long_share: float = 0.0) -> Turn:
        """One question of any kind with its answer."""
        if self.dice.random() < self.strange_share:
            return self.strange_turn(long=self.dice.random() < long_share)
        intent = self.dice.choice(self.intents)
        question = self.question(intent)
        # Choices and rules can arrive at a held-out question by themselves; such a draw is thrown away.
        while plain(question) in self.reserved:
            question = self.question(intent)
        return Turn(question=question, answer=intent.answer)

    def question(self, intent: Intent) -> str:
        # The plainest ways to ask stand first in the file, and people use them most.
        ways = intent.ask[:8] if self.dice.random() < 0.3 else intent.ask
        question = choose(self.dice.choice(ways), self.dice)
        if self.dice.random() < 0.36:
            question = rephrase(question, self.dice)
        if self.dice.random() < 0.2:
            question = swap_synonyms(question, self.dice)
        return question if plain(question) in self.reserved else spoil(question, intent.german, self.dice)

    def strange_turn(self, *, long: bool = False) -> Turn:
        """One question the model has to refuse."""
        strangers = self.strangers[self.dice.random() < 0.34]
        if not strangers.german and self.dice.random() < 0.05:
            return Turn(question=self.gibberish(strangers), answer=strangers.refusal)
        if long:
            count = self.dice.choice([3, 3, 4, 5, 6, 8, 12, 20, 40])
            parts = [self.stranger(strangers) for _ in range(count)]
            joined = self.dice.choice([" ", ". ", "\n"]).join(parts)
            return Turn(question=joined, answer=strangers.refusal)
        question = self.stranger(strangers)
        if self.dice.random() < 0.25:
            question = rephrase(question, self.dice)
        return Turn(question=spoil(question, strangers.german, self.dice), answer=strangers.refusal)

    def stranger(self, strangers: Strangers) -> str:
        """One out-of-scope sentence, ready-made or from a template."""
        dice, words_of = self.dice, strangers.words
        if dice.random() < 0.22:
            return dice.choice(strangers.sentences)
        noun, other = dice.choice(words_of["nouns"]), dice.choice(words_of["nouns"])
        return choose(dice.choice(strangers.templates), dice).format(
            n=noun,
            m=other,
            s=dice.choice(words_of["subjects"]),
            v=dice.choice(words_of["verbs"]),
            j=dice.choice(words_of["adjectives"]),
            a=dice.randint(2, 99),
            b=dice.randint(2, 999),
            y=dice.randint(1100, 2030),
        )

    def gibberish(self, strangers: Strangers) -> str:
        dice = self.dice
        if dice.random() < 0.5:
            every = [word for kind in strangers.words.values() for word in kind]
            return " ".join(dice.sample(every, dice.randint(2, 9)))
        letters = "".join(dice.choice(LETTERS + "     0123456789+-=") for _ in range(dice.randint(4, 24)))
        return tidy(letters) or "x"

    def system(self) -> str | None:
        """A system prompt, or none: the model has to work with all of them."""
        if self.dice.random() < 0.6:
            return None
        if self.dice.random() < 0.7:
            return self.dice.choice(self.systems)
        strangers = self.dice.choice(self.strangers)
        return ". ".join(self.stranger(strangers) for _ in range(self.dice.choice([1, 1, 2, 3, 6])))

    def conversation(self, *, bare: bool = False) -> tuple[str | None, list[Turn]]:
        """A system prompt and one to six turns; a bare one is a single question and nothing before it."""
        if bare:
            return None, [self.turn()]
        count = self.dice.choice([1] * 12 + [2, 2, 3, 4, 5, 6])
        return self.system(), [self.turn(long_share=0.06) for _ in range(count)]

    def corpus(self) -> list[str]:
        """The text the tokenizer is made from."""
        asked = [first_choice(line) for intent in self.intents for line in intent.ask]
        drawn = [self.turn().question for _ in range(6000)]
        answers = [intent.answer for intent in self.intents] + [strangers.refusal for strangers in self.strangers]
        return answers * 8 + asked * 3 + drawn + self.systems
