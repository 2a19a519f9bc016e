"""The shipped demo embedding model, asked over HTTP through the real llama.cpp: the gate that a new training must pass.

A question means what the nearest of the trained questions means; by chance that is right in 2 of 100 cases.
"""

import importlib.resources
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

RECIPE = Path(__file__).parents[2] / "models" / "demo"
MODEL = Path(str(importlib.resources.files("stellwerk.engines"))) / "demo" / "stellwerk-demo-embedding.gguf"
START_LIMIT = 120.0
AT_ONCE = 256

# The parent closes stdin to end the child; the engine's own destructor would wait for running answers.
RUNNER = """
import os, sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = params.n_batch = params.n_ubatch = 512
params.n_parallel = 1
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.embedding = True
server = xllamacpp.Server(params)
print("READY " + server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


@dataclass(frozen=True)
class Question:
    text: str
    meanings: frozenset[str]
    german: bool


class Demo:
    """The model behind its own engine process."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, texts: Sequence[str]) -> dict[str, Any]:
        body = json.dumps({"input": texts, "encoding_format": "float"}).encode()
        request = urllib.request.Request(f"{self._address}/v1/embeddings", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        parts = [self.ask(texts[place : place + AT_ONCE]) for place in range(0, len(texts), AT_ONCE)]
        return np.array([row["embedding"] for part in parts for row in part["data"]])

    def share(self, questions: Sequence[Question], references: Sequence[Question], vectors: np.ndarray) -> float:
        """How many questions are nearest to a reference that means the same."""
        nearest = (self.embed([one.text for one in questions]) @ vectors.T).argmax(axis=1)
        return sum(
            bool(one.meanings & references[place].meanings) for one, place in zip(questions, nearest, strict=True)
        ) / len(questions)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(MODEL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    ) as engine:
        deadline = threading.Timer(START_LIMIT, engine.kill)
        deadline.start()
        try:
            ready = next((line for line in engine.stdout if line.startswith("READY ")), None)
            deadline.cancel()
            assert ready, "the engine did not start"
            yield Demo(ready.removeprefix("READY ").strip())
        finally:
            deadline.cancel()
            engine.kill()


def questions(field: str) -> list[Question]:
    """Of every intent and language what stands under `ask`, with the first of each choice, or under another name."""
    found = []
    for language in ("en", "de"):
        entries = yaml.safe_load((RECIPE / f"questions.{language}.yaml").read_text(encoding="utf-8"))
        for name, entry in entries.items():
            meaning = frozenset({name.removeprefix("de_")})
            lines = [line.strip() for line in entry[field].splitlines() if line.strip()]
            found += [Question(plain(line), meaning, language == "de") for line in lines]
    return found


def plain(line: str) -> str:
    while (end := line.find(")")) >= 0 and (begin := line.rfind("(", 0, end)) >= 0:
        line = line[:begin] + line[begin + 1 : end].partition("|")[0] + line[end + 1 :]
    return " ".join(line.split())


@pytest.fixture(scope="module")
def trained() -> list[Question]:
    return questions("ask")


@pytest.fixture(scope="module")
def held_out() -> list[Question]:
    return questions("held_out")


@pytest.fixture(scope="module")
def fresh() -> list[Question]:
    content = yaml.safe_load((RECIPE / "fresh_questions.yaml").read_text(encoding="utf-8"))["in_scope"]
    return [
        Question(text, frozenset(name.removeprefix("de_") for name in names.split(" or ")), german=False)
        for text, names in content.items()
    ]


@pytest.fixture(scope="module")
def vectors(demo, trained) -> np.ndarray:
    return demo.embed([one.text for one in trained])


def test_file_is_small_enough_to_ship():
    assert MODEL.stat().st_size <= 3 * 1024 * 1024


def test_vectors_have_128_numbers_and_the_length_one(vectors):
    assert vectors.shape[1] == 128
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("text", ["Привет", "你好", "!?", "x" * 400, "\u0000", "🚂", " "])
def test_text_that_it_never_saw_gets_a_vector_too(demo, text):
    (vector,) = demo.embed([text])
    assert np.isfinite(vector).all()


def test_held_out_questions_are_nearest_to_what_they_mean(demo, trained, held_out, vectors):
    assert demo.share(held_out, trained, vectors) >= 0.93


@pytest.mark.parametrize("german", [True, False], ids=["German to English", "English to German"])
def test_held_out_questions_are_found_in_the_other_language(demo, trained, held_out, vectors, german):
    others = [place for place, one in enumerate(trained) if one.german is not german]
    references = [trained[place] for place in others]
    known = frozenset().union(*(one.meanings for one in references))
    asked = [one for one in held_out if one.german is german and one.meanings <= known]
    assert len(asked) > 50
    assert demo.share(asked, references, vectors[others]) >= 0.9


def test_fresh_questions_are_nearest_to_what_they_mean(demo, trained, fresh, vectors):
    assert demo.share(fresh, trained, vectors) >= 0.86


def test_fresh_questions_are_nearest_to_their_answers(demo, fresh):
    answers = []
    for language in ("en", "de"):
        entries = yaml.safe_load((RECIPE / f"questions.{language}.yaml").read_text(encoding="utf-8"))
        answers += [
            Question(entry["answer"], frozenset({name.removeprefix("de_")}), language == "de")
            for name, entry in entries.items()
        ]
    assert demo.share(fresh, answers, demo.embed([one.text for one in answers])) >= 0.86
