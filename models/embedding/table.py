"""The network, which is a table: a text is the sum of the vectors of its tokens, made as long as one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_TOKENS = 48
_BETA, _BETA_SQUARED, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tokens of many texts behind each other; `starts` says where each text begins."""

    tokens: NDArray[np.int64]
    starts: NDArray[np.int64]
    texts: NDArray[np.int64]
    """Of each token, the number of its text."""


def pack(cut: list[list[int]]) -> Batch:
    shortened = [ids[:_TOKENS] for ids in cut]
    lengths = np.array([len(ids) for ids in shortened])
    return Batch(
        tokens=np.array([token for ids in shortened for token in ids]),
        starts=np.concatenate(([0], np.cumsum(lengths)[:-1])),
        texts=np.repeat(np.arange(len(shortened)), lengths),
    )


def embed(table: Vectors, batch: Batch) -> tuple[Vectors, Vectors]:
    """The vectors of the texts, and how long they were before."""
    sums = np.add.reduceat(table[batch.tokens], batch.starts, axis=0)
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return sums / lengths, lengths


class Trainer:
    """Pulls texts of one meaning together and pushes the others of a batch apart (InfoNCE), with Adam."""

    def __init__(self, table: Vectors, *, temperature: float) -> None:
        self.table = table
        self._temperature = temperature
        self._first = np.zeros_like(table)
        self._second = np.zeros_like(table)
        self._steps = 0

    def step(self, left: Batch, right: Batch, meanings: NDArray[np.int64], rate: float) -> float:
        """One step over pairs: text i of `left` and of `right` mean `meanings[i]`. Returns the loss."""
        one, one_length = embed(self.table, left)
        two, two_length = embed(self.table, right)
        scores = one @ two.T / self._temperature
        # Others of the same meaning are no counterexamples.
        same = meanings[:, None] == meanings[None, :]
        np.fill_diagonal(same, val=False)
        scores[same] = -np.inf
        loss, wanted = _loss(scores)
        wanted /= self._temperature
        gradient = np.zeros_like(self.table)
        _add_gradient(gradient, left, one, one_length, wanted @ two)
        _add_gradient(gradient, right, two, two_length, wanted.T @ one)
        self._move(gradient, rate)
        return loss

    def _move(self, gradient: Vectors, rate: float) -> None:
        self._steps += 1
        self._first += (1 - _BETA) * (gradient - self._first)
        self._second += (1 - _BETA_SQUARED) * (gradient * gradient - self._second)
        first = self._first / (1 - _BETA**self._steps)
        second = self._second / (1 - _BETA_SQUARED**self._steps)
        self.table -= rate * first / (np.sqrt(second) + _EPSILON)


def _loss(scores: Vectors) -> tuple[float, Vectors]:
    """The mean loss over rows and columns, and its gradient with respect to the scores."""
    count = len(scores)
    rows = np.exp(scores - scores.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    columns = np.exp(scores - scores.max(axis=0, keepdims=True))
    columns /= columns.sum(axis=0, keepdims=True)
    right = np.arange(count)
    loss = -(np.log(rows[right, right] + 1e-12) + np.log(columns[right, right] + 1e-12)).mean() / 2
    gradient = rows + columns
    gradient[right, right] -= 2
    return float(loss), gradient / (2 * count)


def _add_gradient(gradient: Vectors, batch: Batch, vectors: Vectors, lengths: Vectors, wanted: Vectors) -> None:
    inner = (vectors * wanted).sum(axis=1, keepdims=True)
    of_sums = (wanted - vectors * inner) / lengths
    order = np.argsort(batch.tokens, kind="stable")
    tokens, starts = np.unique(batch.tokens[order], return_index=True)
    gradient[tokens] += np.add.reduceat(of_sums[batch.texts[order]], starts, axis=0)
