"""Counters of the gateway and their Prometheus text form.

Recording stands on the hot path: plain integers in lists and dictionaries, no locks. Everything here belongs to the
thread of the event loop.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import msgspec

from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome
from stellwerk.telemetry.process import open_files, resident_bytes

MAX_LABEL_SETS = 1_000
"""Label sets of one metric; what comes after them is counted under the model and provider `other`."""
MAX_MODELS = MAX_LABEL_SETS // 4
"""Label sets of the metrics that have four token types or many buckets for each."""
MAX_LABEL_LENGTH = 200

# Bucket edges from OpenTelemetry's conventions for generative AI, in seconds.
DURATION_EDGES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_EDGES = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

Reading: TypeAlias = float | Mapping[str, float] | None
"""One value, or one for each value of a label; None is left out."""
_Traffic: TypeAlias = tuple[Operation, str, str]
"""Operation, model, provider."""

_OTHER = "other"
_NONE = "none"


class _Histogram:
    __slots__ = ("buckets", "edges", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.buckets = [0] * (len(edges) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(self.edges, seconds)] += 1
        self.total += seconds


class _Model:
    """What is counted for one operation, model and provider, whatever the status was."""

    __slots__ = ("cached", "cost", "duration", "first_token", "input", "output", "reasoning")

    def __init__(self) -> None:
        self.duration = _Histogram(DURATION_EDGES)
        self.first_token = _Histogram(FIRST_TOKEN_EDGES)
        self.input = 0
        self.output = 0
        self.cached = 0
        self.reasoning = 0
        self.cost = 0


class _Watched(msgspec.Struct, frozen=True):
    name: str
    kind: Literal["gauge", "counter"]
    meaning: str
    read: Callable[[], Reading]
    label: str


class Metrics:
    """Counts what happens and renders it for Prometheus; costs are in `currency`, the ledger's."""

    def __init__(self, *, version: str, currency: str = "EUR") -> None:
        self._currency = currency
        self._requests: dict[tuple[Operation, str, str, int], int] = {}
        self._models: dict[_Traffic, _Model] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._refusals: dict[str, int] = {}
        self._watched: dict[str, _Watched] = {}
        self._disconnects = 0
        self._retries = 0
        self._fallbacks = 0
        self._opened = 0
        self._reused = 0
        self.watch("build_info", "The running version.", lambda: {version: 1}, label="version")
        self.watch("process_rss_bytes", "Resident memory of the gateway process.", resident_bytes)
        self.watch("process_open_fds", "Open file descriptors of the gateway process.", open_files)

    def record(self, outcome: Outcome) -> None:
        """Counts a finished call.

        The model is counted under its name upstream, so that clients cannot invent label values; a call that reached
        no target has the model `none`.
        """
        model = outcome.target or _NONE
        provider = outcome.provider or _NONE
        key = (outcome.operation, model, provider, outcome.status)
        try:
            self._requests[key] += 1
        except KeyError:
            self._count_new(key)
        counted = self._models.get((outcome.operation, model, provider))
        if counted is None:
            counted = self._new_model((outcome.operation, model, provider))
        counted.duration.observe(outcome.duration)
        if outcome.stream and outcome.first_byte is not None:
            counted.first_token.observe(outcome.first_byte)
        usage = outcome.usage
        if usage is not None:
            counted.input += usage.input_tokens
            counted.output += usage.output_tokens
            counted.cached += usage.cached_tokens
            counted.reasoning += usage.reasoning_tokens
        if outcome.cost is not None:
            counted.cost += outcome.cost
        if outcome.error is not None:
            self._count_error(outcome.error, provider)

    def refused(self, code: str) -> None:
        """Counts a request that was answered with an error."""
        if code not in self._refusals and (len(self._refusals) >= MAX_LABEL_SETS or _too_long(code)):
            code = _OTHER
        self._refusals[code] = self._refusals.get(code, 0) + 1

    def left(self) -> None:
        """Counts a client that went away before its answer was complete."""
        self._disconnects += 1

    def retried(self) -> None:
        """Counts a further attempt at the same target."""
        self._retries += 1

    def fell_back(self) -> None:
        """Counts a step to the next target."""
        self._fallbacks += 1

    def connected(self) -> None:
        """Counts a new connection to an upstream."""
        self._opened += 1

    def reused(self) -> None:
        """Counts a request that went over a connection from the pool."""
        self._reused += 1

    def watch(
        self,
        name: str,
        meaning: str,
        read: Callable[[], Reading],
        *,
        kind: Literal["gauge", "counter"] = "gauge",
        label: str = "state",
    ) -> None:
        """Has `read` called at every rendering. `name` comes without prefix; a counter's ends in `_total`.

        A mapping becomes one sample for each of its keys, which are the values of `label`.
        """
        if name in self._watched:
            raise ValueError(f"the metric {name} is watched already")
        self._watched[name] = _Watched(f"stellwerk_{name}", kind, meaning, read, label)

    def render(self) -> bytes:
        """Everything in Prometheus' text exposition format 0.0.4."""
        lines: list[str] = []
        lines += self._render_requests()
        lines += self._render_models()
        lines += self._render_events()
        for watched in self._watched.values():
            lines += _render_watched(watched)
        return ("\n".join(lines) + "\n").encode("utf-8", "replace")

    def _count_new(self, key: tuple[Operation, str, str, int]) -> None:
        operation, model, provider, status = key
        if len(self._requests) >= MAX_LABEL_SETS or _too_long(model, provider):
            key = (operation, _OTHER, _OTHER, status)
        self._requests[key] = self._requests.get(key, 0) + 1

    def _new_model(self, key: _Traffic) -> _Model:
        operation, model, provider = key
        if len(self._models) >= MAX_MODELS or _too_long(model, provider):
            key = (operation, _OTHER, _OTHER)
        counted = self._models.get(key)
        if counted is None:
            counted = self._models[key] = _Model()
        return counted

    def _count_error(self, code: str, provider: str) -> None:
        key = (code, provider)
        if key not in self._errors and (len(self._errors) >= MAX_LABEL_SETS or _too_long(code, provider)):
            key = (_OTHER, _OTHER)
        self._errors[key] = self._errors.get(key, 0) + 1

    def _render_requests(self) -> Iterator[str]:
        yield from _head("stellwerk_requests_total", "counter", "Finished calls by the status that the client saw.")
        for (operation, model, provider, status), count in self._requests.items():
            yield f'stellwerk_requests_total{{{_labels(operation, model, provider)},status="{status}"}} {count}'

    def _render_models(self) -> Iterator[str]:
        models = [(_labels(*key), model) for key, model in self._models.items()]
        name = "stellwerk_request_duration_seconds"
        yield from _head(name, "histogram", "Seconds from the head of the request to the last byte of the answer.")
        for labels, model in models:
            yield from _render_histogram(name, labels, model.duration)
        name = "stellwerk_time_to_first_token_seconds"
        yield from _head(name, "histogram", "Seconds from the head of the request to the first byte of a stream.")
        for labels, model in models:
            yield from _render_histogram(name, labels, model.first_token)
        name = "stellwerk_tokens_total"
        yield from _head(name, "counter", "Tokens. cache_read is a part of input, reasoning is a part of output.")
        for labels, model in models:
            yield f'{name}{{{labels},type="input"}} {model.input}'
            yield f'{name}{{{labels},type="output"}} {model.output}'
            yield f'{name}{{{labels},type="cache_read"}} {model.cached}'
            yield f'{name}{{{labels},type="reasoning"}} {model.reasoning}'
        name = "stellwerk_cost_total"
        yield from _head(name, "counter", "Cost of calls whose price is known, in the currency of the ledger.")
        for labels, model in models:
            yield f'{name}{{{labels},currency="{_escape(self._currency)}"}} {model.cost / 1_000_000}'

    def _render_events(self) -> Iterator[str]:
        name = "stellwerk_call_errors_total"
        yield from _head(name, "counter", "Calls that failed, also in the middle of a stream, by the error's code.")
        for (code, provider), count in self._errors.items():
            yield f'{name}{{code="{_escape(code)}",provider="{_escape(provider)}"}} {count}'
        name = "stellwerk_refusals_total"
        yield from _head(name, "counter", "Requests that were answered with an error, calls or not, by its code.")
        for code, count in self._refusals.items():
            yield f'{name}{{code="{_escape(code)}"}} {count}'
        yield from _head("stellwerk_retries_total", "counter", "Further attempts at the same target.")
        yield f"stellwerk_retries_total {self._retries}"
        yield from _head("stellwerk_fallbacks_total", "counter", "Steps to the next target of a plan.")
        yield f"stellwerk_fallbacks_total {self._fallbacks}"
        yield from _head(
            "stellwerk_client_disconnects_total", "counter", "Clients that left before their answer was complete."
        )
        yield f"stellwerk_client_disconnects_total {self._disconnects}"
        name = "stellwerk_upstream_connections_total"
        yield from _head(name, "counter", "Requests to upstreams, by whether their connection was opened or reused.")
        yield f'{name}{{state="opened"}} {self._opened}'
        yield f'{name}{{state="reused"}} {self._reused}'


def _render_histogram(name: str, labels: str, histogram: _Histogram) -> Iterator[str]:
    count = 0
    for edge, inside in zip((*histogram.edges, "+Inf"), histogram.buckets, strict=True):
        count += inside
        yield f'{name}_bucket{{{labels},le="{edge}"}} {count}'
    yield f"{name}_sum{{{labels}}} {histogram.total}"
    yield f"{name}_count{{{labels}}} {count}"


def _render_watched(watched: _Watched) -> Iterator[str]:
    reading = watched.read()
    if reading is None:
        return
    yield from _head(watched.name, watched.kind, watched.meaning)
    if isinstance(reading, Mapping):
        for value, number in reading.items():
            yield f'{watched.name}{{{watched.label}="{_escape(value)}"}} {+number}'
    else:
        yield f"{watched.name} {+reading}"  # the plus makes a number of a bool


def _head(name: str, kind: str, meaning: str) -> Iterable[str]:
    meaning = meaning.replace("\\", "\\\\").replace("\n", "\\n")
    return (f"# HELP {name} {meaning}", f"# TYPE {name} {kind}")


def _labels(operation: Operation, model: str, provider: str) -> str:
    return f'operation="{operation.value}",model="{_escape(model)}",provider="{_escape(provider)}"'


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _too_long(*values: str) -> bool:
    return any(len(value) > MAX_LABEL_LENGTH for value in values)
