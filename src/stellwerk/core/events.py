"""Pieces of an answer, the same for every wire: what providers read and APIs render when their wires differ."""

import msgspec

from stellwerk.core.outcome import Usage


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of an answer."""


class Text(Event, frozen=True, kw_only=True):
    """Part of what the model says in choice `index`."""

    index: int
    text: str


class Thinking(Event, frozen=True, kw_only=True):
    """Part of what the model thinks in choice `index` before it speaks."""

    index: int
    text: str


class ToolCall(Event, frozen=True, kw_only=True):
    """Part of tool call `number` in choice `index`.

    The first piece of a number has the id and the name, later ones have more of the arguments, which are JSON once
    they are joined. A whole answer has one piece for each call.
    """

    index: int
    number: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Finished(Event, frozen=True, kw_only=True):
    """Choice `index` is complete. `reason` is OpenAI's word for it: stop, length, tool_calls, content_filter."""

    index: int
    reason: str


class Used(Event, frozen=True, kw_only=True):
    """What the call used; comes once, after every choice."""

    usage: Usage
