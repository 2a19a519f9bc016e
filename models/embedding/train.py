# /// script
# requires-python = ">=3.11"
# dependencies = ["gguf==0.19.0", "numpy==2.4.6", "pyyaml==6.0.3"]
# ///
"""Trains the demo embedding model from nothing, writes its GGUF and examines it.  Runs by hand; see README.md."""

import argparse
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import embedding_file
import numpy as np
from numpy.typing import NDArray
from table import Batch, Trainer, Vectors, embed, pack
from texts import Text, Texts
from vocabulary import SPECIALS, UNKNOWN, Cutter, learn_pieces

SHIPPED = Path(__file__).parents[2] / "src" / "stellwerk" / "engines" / "demo" / "stellwerk-demo-embedding.gguf"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what comes out."""

    seed: int
    steps: int
    pairs: int
    """Pairs of texts in one step."""
    rate: float
    temperature: float
    vocabulary: int
    width: int
    drawn: int
    """Questions drawn of each intent."""


class Pairs:
    """Draws pairs of token lists that mean the same."""

    def __init__(self, texts: Texts, cutter: Cutter, recipe: Recipe) -> None:
        self._dice = random.Random(recipe.seed + 1)
        self._cutter = cutter
        known = texts.known(recipe.drawn)
        self._meanings = texts.meanings
        self._known = [self._cut([one for one in known if one.meaning == meaning]) for meaning in self._meanings]
        self._strange = [(self._both(one), self._both(two)) for one, two in texts.strange(20_000)]

    def _cut(self, known: Sequence[Text]) -> tuple[list[tuple[list[int], list[int]]], ...]:
        """The texts of one meaning by language, each cut in two ways."""
        by_language = [[self._both(one.text) for one in known if one.german is german] for german in (False, True)]
        return tuple(language for language in by_language if language)

    def _both(self, text: str) -> tuple[list[int], list[int]]:
        return self._cutter.cut(text) or [UNKNOWN], self._cutter.cut_loosely(text, self._dice) or [UNKNOWN]

    def draw(self, count: int) -> tuple[Batch, Batch, NDArray[np.int64]]:
        """A third of the pairs are unrelated sentences: they spread everything else over the space."""
        dice, left, right, meanings = self._dice, [], [], []
        for number in range(count):
            if dice.random() < 0.3:
                one, two = dice.choice(self._strange)
                meanings.append(-1 - number)
            else:
                meaning = dice.randrange(len(self._known))
                languages = self._known[meaning]
                one, two = dice.choice(dice.choice(languages)), dice.choice(dice.choice(languages))
                meanings.append(meaning)
            left.append(self._spoil(one[dice.random() < 0.4]))
            right.append(self._spoil(two[dice.random() < 0.4]))
        return pack(left), pack(right), np.array(meanings)

    def _spoil(self, tokens: list[int]) -> list[int]:
        """Some tokens lost or unknown, so that no single one decides."""
        dice = self._dice
        kept = [UNKNOWN if dice.random() < 0.01 else token for token in tokens if dice.random() > 0.12]
        return kept or tokens


def train(pairs: Pairs, recipe: Recipe) -> Vectors:
    random_numbers = np.random.default_rng(recipe.seed)
    table = random_numbers.normal(0, 0.1, (recipe.vocabulary, recipe.width)).astype(np.float32)
    trainer = Trainer(table, temperature=recipe.temperature)
    began, smooth = time.monotonic(), 0.0
    for step in range(recipe.steps):
        left, right, meanings = pairs.draw(recipe.pairs)
        rate = recipe.rate * min(1.0, (step + 1) / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / recipe.steps)))
        loss = trainer.step(left, right, meanings, rate)
        smooth = loss if step == 0 else 0.97 * smooth + 0.03 * loss
        if step % 200 == 0 or step == recipe.steps - 1:
            print(f"step {step:5}  loss {smooth:.4f}  {time.monotonic() - began:5.0f} s", flush=True)
    # What stands around every text must not make texts alike.
    for special in SPECIALS:
        if special != "[UNK]":
            table[SPECIALS.index(special)] = 0
    return table


class Examination:
    """Asks which of the references is nearest, and counts how often it means what it should."""

    def __init__(self, table: Vectors, cutter: Cutter, references: Sequence[Text]) -> None:
        self._table, self._cutter = table, cutter
        self._references = references
        self._vectors = self._embed([one.text for one in self._references])

    def _embed(self, texts: Sequence[str]) -> Vectors:
        return embed(self._table, pack([self._cutter.cut(text) or [UNKNOWN] for text in texts]))[0]

    def share(
        self, title: str, asked: Sequence[tuple[str, frozenset[str]]], german: bool | None = None, *, say: bool = False
    ) -> None:
        """Prints how many are right; `german` limits the references to one language."""
        chosen = [n for n, one in enumerate(self._references) if german is None or one.german is german]
        scores = self._embed([text for text, _ in asked]) @ self._vectors[chosen].T
        nearest = [self._references[chosen[place]] for place in scores.argmax(axis=1)]
        pairs = list(zip(asked, nearest, strict=True))
        right = sum(found.meaning in meanings for (_, meanings), found in pairs)
        print(f"{title}: {right} of {len(asked)} ({100 * right / len(asked):.0f} %)")
        if say:
            wrong = [(text, found) for (text, meanings), found in pairs if found.meaning not in meanings]
            print("".join(f"  not: {text} -> {found.text} ({found.meaning})\n" for text, found in wrong), end="")


def examine(table: Vectors, cutter: Cutter, texts: Texts, *, say: bool) -> None:
    examination = Examination(table, cutter, texts.references())
    answers = Examination(table, cutter, texts.answers())
    held_out = texts.held_out()

    def with_language(german: bool, meanings: set[str]) -> list[tuple[str, frozenset[str]]]:
        chosen = [one for one in held_out if one.german is german and one.meaning in meanings]
        return [(one.text, frozenset({one.meaning})) for one in chosen]

    german = {one.meaning for one in texts.references() if one.german}
    english = {one.meaning for one in texts.references() if not one.german}
    everything = [(one.text, frozenset({one.meaning})) for one in held_out]
    print(f"by chance: {100 / len(texts.meanings):.1f} %")
    examination.share("held-out questions", everything, say=say)
    examination.share("German held-out questions, English references", with_language(True, english), german=False)
    examination.share("English held-out questions, German references", with_language(False, german), german=True)
    examination.share("fresh questions", texts.fresh())
    answers.share("held-out questions, answers as references", everything)
    answers.share("fresh questions, answers as references", texts.fresh())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the GGUF file to write")
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    parser.add_argument("--pairs", type=int, default=384, help="pairs of texts per step")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--temperature", type=float, default=0.07, help="of the contrastive loss")
    parser.add_argument("--vocabulary", type=int, default=5120, help="tokens in the vocabulary")
    parser.add_argument("--width", type=int, default=126, help="numbers of a vector, without the ballast")
    parser.add_argument("--drawn", type=int, default=300, help="questions drawn of each intent")
    parser.add_argument("--seed", type=int, default=7, help="start of all chance")
    parser.add_argument("--say", action="store_true", help="print the held-out questions that fail")
    return parser.parse_args()


def main() -> None:
    """Vocabulary, training, examination, file."""
    arguments = vars(parse_arguments())
    out, say = arguments.pop("out"), arguments.pop("say")
    recipe = Recipe(**arguments)
    began = time.monotonic()
    texts = Texts(recipe.seed)
    pieces = learn_pieces(texts.corpus(), recipe.vocabulary)
    if len(pieces) != recipe.vocabulary:
        raise SystemExit(f"only {len(pieces)} pieces can be made")
    cutter = Cutter(pieces)
    print(f"{recipe}: vocabulary after {time.monotonic() - began:.0f} s", flush=True)
    pairs = Pairs(texts, cutter, recipe)
    print(f"texts after {time.monotonic() - began:.0f} s", flush=True)
    table = train(pairs, recipe)
    embedding_file.write(out, table, pieces)
    print(f"wrote {out.name}, {out.stat().st_size} bytes, {time.monotonic() - began:.0f} s in all")
    examine(table, cutter, texts, say=say)


if __name__ == "__main__":
    main()
