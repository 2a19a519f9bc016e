"""The shipped demo model, asked over HTTP through the real llama.cpp.

The last tests are the release gate: questions that the training never saw.
"""

import importlib.resources
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE = Path(__file__).parents[2] / "models" / "demo"
MODEL = Path(str(importlib.resources.files("stellwerk.engines"))) / "demo" / "stellwerk-demo.gguf"
START_LIMIT = 120.0

# The parent closes stdin to end the child; the engine's own destructor would wait for running answers.
RUNNER = """
import os, sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = 2048
params.n_parallel = 1
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.cache_ram_mib = 0
server = xllamacpp.Server(params)
print("READY " + server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


class Demo:
    """The demo model behind its own engine process."""

    def __init__(self, address: str) -> None:
        self.address = address

    def complete(self, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        body = json.dumps({"messages": messages, **options}).encode()
        request = urllib.request.Request(
            f"{self.address}/v1/chat/completions", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def ask(self, question: str, **options: Any) -> str:
        return text_of(self.complete([{"role": "user", "content": question}], **options))


def text_of(completion: dict[str, Any]) -> str:
    return completion["choices"][0]["message"]["content"]


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


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """The trained answers by intent; `refusal` and `de_refusal` among them."""
    known = {}
    for language in ("en", "de"):
        entries = yaml.safe_load((RECIPE / f"questions.{language}.yaml").read_text(encoding="utf-8"))
        known |= {name: entry["answer"] for name, entry in entries.items()}
    strangers = yaml.safe_load((RECIPE / "out_of_scope.yaml").read_text(encoding="utf-8"))
    return known | {"refusal": strangers["en"]["refusal"], "de_refusal": strangers["de"]["refusal"]}


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    return yaml.safe_load((RECIPE / "fresh_questions.yaml").read_text(encoding="utf-8"))


def test_file_is_small_enough_to_ship() -> None:
    assert MODEL.stat().st_size <= 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("question", "intent"),
    [
        ("What is Stellwerk?", "what_is_stellwerk"),
        ("What can you do?", "what_can_you_do"),
        ("Who are you?", "who_are_you"),
        ("How do I load a model?", "load_gguf"),
        ("Was ist Stellwerk?", "de_what_is_stellwerk"),
        ("Was kannst du?", "de_what_can_you_do"),
        ("Wer bist du?", "de_who_are_you"),
        ("Wie lade ich ein Modell?", "de_load_gguf"),
    ],
)
def test_same_question_gets_the_same_answer_every_time(
    demo: Demo, answers: dict[str, str], question: str, intent: str
) -> None:
    assert [demo.ask(question, temperature=0) for _ in range(3)] == [answers[intent]] * 3


def test_temperature_is_zero_unless_the_caller_says_otherwise(demo: Demo) -> None:
    with urllib.request.urlopen(f"{demo.address}/props", timeout=60) as response:
        props = json.load(response)
    assert props["default_generation_settings"]["params"]["temperature"] == 0


@pytest.mark.parametrize("question", ["what is stellwerk", "WHAT IS STELLWERK?", "What is Stelwerk", "whats stellwerk"])
def test_hasty_typing_is_understood(demo: Demo, answers: dict[str, str], question: str) -> None:
    assert demo.ask(question) == answers["what_is_stellwerk"]


@pytest.mark.parametrize(
    "system",
    [
        "You are a helpful assistant.",
        "You are the assistant of a small software company in Bremen. Never mention prices.",
        "Du bist ein hilfreicher Assistent.",
    ],
)
def test_system_prompt_does_not_disturb(demo: Demo, answers: dict[str, str], system: str) -> None:
    asked = [{"role": "system", "content": system}, {"role": "user", "content": "Was kannst du?"}]
    assert text_of(demo.complete(asked)) == answers["de_what_can_you_do"]


def test_second_turn_answers_the_second_question(demo: Demo, answers: dict[str, str]) -> None:
    history = [{"role": "user", "content": "Hello!"}]
    history.append({"role": "assistant", "content": text_of(demo.complete(history))})
    history.append({"role": "user", "content": "How do I create an API key?"})
    assert text_of(demo.complete(history)) == answers["create_key"]


def test_sixth_turn_answers_the_sixth_question(demo: Demo, answers: dict[str, str]) -> None:
    intents = {
        "Hi": "hello",
        "What is Stellwerk?": "what_is_stellwerk",
        "Was kostet Stellwerk?": "de_license",
        "Who painted the Mona Lisa?": "refusal",
        "Thank you": "thanks",
        "How do I stop the server?": "stop",
    }
    history: list[dict[str, Any]] = []
    for question, intent in intents.items():
        history.append({"role": "user", "content": question})
        history.append({"role": "assistant", "content": text_of(demo.complete(history))})
        assert history[-1]["content"] == answers[intent], question


def test_max_tokens_cuts_the_answer(demo: Demo, answers: dict[str, str]) -> None:
    completion = demo.complete([{"role": "user", "content": "What is Stellwerk?"}], max_tokens=5)
    assert completion["choices"][0]["finish_reason"] == "length"
    assert answers["what_is_stellwerk"].startswith(text_of(completion))


def test_content_may_come_in_parts_or_be_absent(demo: Demo, answers: dict[str, str]) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    asked = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
        {"role": "user", "content": [{"type": "text", "text": "What is Stellwerk?"}]},
    ]
    assert text_of(demo.complete(asked)) == answers["what_is_stellwerk"]


def test_long_unrelated_text_is_refused_with_advice(demo: Demo, answers: dict[str, str]) -> None:
    sentence = "The harvest festival in our village begins on Saturday with a parade of old tractors and a brass band. "
    answer = demo.ask("Please shorten this text: " + sentence * 12)
    assert answer == answers["refusal"]
    assert all(advice in answer for advice in ("GGUF", "Ollama", "OPENAI_API_KEY"))


def test_fresh_questions_are_answered(demo: Demo, answers: dict[str, str], fresh: dict[str, Any]) -> None:
    wrong = [
        f"{question} -> {answer}"
        for question, intent in fresh["in_scope"].items()
        if (answer := demo.ask(question)) not in {answers[name] for name in intent.split(" or ")}
    ]
    assert len(wrong) <= 0.25 * len(fresh["in_scope"]), "\n".join(wrong)


def test_fresh_strangers_are_refused(demo: Demo, answers: dict[str, str], fresh: dict[str, Any]) -> None:
    refusals = {answers["refusal"], answers["de_refusal"]}
    wrong = [
        f"{question} -> {answer}"
        for question in fresh["out_of_scope"]
        if (answer := demo.ask(question)) not in refusals
    ]
    assert len(wrong) <= 0.15 * len(fresh["out_of_scope"]), "\n".join(wrong)
