"""The training texts: what the demo chat model is trained on, grouped by what it means."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

DEMO = Path(__file__).resolve().parent.parent / "demo"
sys.path.append(str(DEMO))

from conversations import Conversations, Intent, Strangers, choose, first_choice, plain, rephrase, spoil  # noqa: E402

_SENTENCE = re.compile(r"(?<=[.!?]) +")


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text and what it means: texts with one meaning belong together, in whichever language they are."""

    text: str
    meaning: str
    german: bool


def meaning_of(intent: Intent) -> str:
    return intent.name.removeprefix("de_")


class Texts:
    """Draws from one seeded source of chance. Held-out questions are never drawn."""

    def __init__(self, seed: int) -> None:
        self._conversations = Conversations(seed)
        self.dice = self._conversations.dice
        self.intents = self._conversations.intents
        self.meanings = sorted({meaning_of(intent) for intent in self.intents})

    def corpus(self) -> list[str]:
        """What the vocabulary is made from: no typing errors, every choice of every line about equally often."""
        asked = [choose(line, self.dice) for intent in self.intents for line in intent.ask for _ in range(6)]
        answers = [intent.answer for intent in self.intents] * 6
        strange = [
            self._conversations.stranger(strangers) for strangers in self._conversations.strangers for _ in range(6_000)
        ]
        return asked + answers + strange

    def known(self, each: int) -> list[Text]:
        """`each` noisy questions of every intent, and its answer, whole and in sentences."""
        drawn = []
        for intent in self.intents:
            questions = [self._question(intent) for _ in range(each)]
            answers = [intent.answer] * (each // 12) + _SENTENCE.split(intent.answer) * (each // 24)
            drawn += [Text(text=text, meaning=meaning_of(intent), german=intent.german) for text in questions + answers]
        return drawn

    def strange(self, count: int) -> list[tuple[str, str]]:
        """Pairs of one unrelated sentence as two people might type it."""
        return [self._strange_pair(self.dice.choice(self._conversations.strangers)) for _ in range(count)]

    def _strange_pair(self, strangers: Strangers) -> tuple[str, str]:
        text = self._conversations.stranger(strangers)
        german = strangers.german
        return spoil(text, german, self.dice), spoil(rephrase(text, self.dice), german, self.dice)

    def _question(self, intent: Intent) -> str:
        while True:
            question = self._conversations.question(intent)
            if plain(question) not in self._conversations.reserved:
                return question

    def references(self) -> list[Text]:
        """One plain spelling of every line that is trained: what an index would hold."""
        return [
            Text(text=first_choice(line), meaning=meaning_of(intent), german=intent.german)
            for intent in self.intents
            for line in intent.ask
        ]

    def answers(self) -> list[Text]:
        """The answer of each intent: what a reranker would have to find."""
        return [Text(text=intent.answer, meaning=meaning_of(intent), german=intent.german) for intent in self.intents]

    def held_out(self) -> list[Text]:
        """Questions that are never trained, though the training questions were extended with them in sight."""
        return [
            Text(text=line, meaning=meaning_of(intent), german=intent.german)
            for intent in self.intents
            for line in intent.held_out
        ]

    def fresh(self) -> list[tuple[str, frozenset[str]]]:
        """Questions that were written when the training questions were complete, with the meanings that are right."""
        content = yaml.safe_load((DEMO / "fresh_questions.yaml").read_text(encoding="utf-8"))
        return [
            (text, frozenset(name.removeprefix("de_") for name in names.split(" or ")))
            for text, names in content["in_scope"].items()
        ]
