"""A WordPiece vocabulary made from the training texts, and the cutting of text into its pieces as llama.cpp does it."""

import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN = SPECIALS.index("[UNK]")
START = "\u2581"
"""Stands before pieces that begin a word; the others have nothing before them."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789ßæœøłđ"
_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»„“”‘’‚–—…€£§°·•"
_LONGEST = 16


def split_words(text: str) -> Iterator[str]:
    """Words in lower case without accents; each punctuation mark and each Chinese character is a word of its own."""
    word = ""
    for character in unicodedata.normalize("NFC", text):
        # llama.cpp keeps the first of what a letter decomposes into: ä becomes a.
        letter = unicodedata.normalize("NFD", character)[0].lower()
        kind = unicodedata.category(letter)
        if letter.isspace():
            parts = (word, "")
        elif kind.startswith("P") or (kind.startswith("S") and ord(letter) < 0x7F) or "\u4e00" <= letter <= "\u9fff":
            parts = (word, letter)
        else:
            if kind != "Cc":
                word += letter
            continue
        yield from (part for part in parts if part)
        word = ""
    if word:
        yield word


def learn_pieces(texts: Iterable[str], size: int) -> list[str]:
    """The vocabulary, `size` tokens: the special ones, single characters, byte-pair merges with the frequent first."""
    counts = Counter(word for text in texts for word in split_words(text))
    words = {word: [START + word[0], *word[1:]] for word in counts}
    pieces = dict.fromkeys([*SPECIALS, *(START + sign for sign in _LETTERS + _SIGNS), *_LETTERS])
    pieces |= dict.fromkeys(sorted({piece for parts in words.values() for piece in parts}))
    pairs: Counter[tuple[str, str]] = Counter()
    holders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for word, parts in words.items():
        for pair in pairwise(parts):
            pairs[pair] += counts[word]
            holders[pair].add(word)
    while len(pieces) < size and pairs:
        pair = max(pairs, key=lambda one: (pairs[one], one))
        if pairs[pair] < 2:
            break
        joined = pair[0] + pair[1]
        for word in sorted(holders.pop(pair)):
            parts = words[word]
            for old in pairwise(parts):
                pairs[old] -= counts[word]
                holders[old].discard(word)
            words[word] = parts = _merge(parts, pair)
            for new in pairwise(parts):
                pairs[new] += counts[word]
                holders[new].add(word)
        pairs.pop(pair, None)
        if len(joined) <= _LONGEST:
            pieces[joined] = None
    return list(pieces)


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


class Cutter:
    """Cuts texts into token ids: from left to right, the longest piece that fits.

    A word that no pieces make is unknown.
    """

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._longest = max(len(piece) for piece in pieces)
        self._known: dict[str, list[int]] = {}

    def cut(self, text: str) -> list[int]:
        """Ids without those of [CLS] and [SEP]."""
        ids = []
        for word in split_words(text):
            if word not in self._known:
                self._known[word] = self._cut_word(word, None)
            ids += self._known[word]
        return ids

    def cut_loosely(self, text: str, dice: random.Random) -> list[int]:
        """Some longer pieces are passed over by chance, so that the short ones learn what they are part of."""
        return [piece for word in split_words(text) for piece in self._cut_word(word, dice)]

    def _cut_word(self, word: str, dice: random.Random | None) -> list[int]:
        marked, place, found = START + word, 0, []
        while place < len(marked):
            for end in range(min(len(marked), place + self._longest), place, -1):
                piece = self._ids.get(marked[place:end])
                if piece is None or (dice is not None and end - place > 2 and dice.random() < 0.2):
                    continue
                found.append(piece)
                place = end
                break
            else:
                return [UNKNOWN]
        return found
