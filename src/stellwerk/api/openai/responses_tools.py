"""Tools of OpenAI's Responses API, said as those of chat completions, which know no namespaces."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from stellwerk.core.errors import BadRequest

MOST_TOOLS: Final = 1024
_LONGEST_NAME = 64
"""What vendors take."""
_DIGEST_LETTERS = 8


class Tool(msgspec.Struct):
    """A function, or a namespace of functions."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: Annotated[list["Tool"], Meta(max_length=MOST_TOOLS)] | None = None


class FullName(msgspec.Struct, frozen=True):
    """A function's own name, and that of its namespace."""

    namespace: str
    name: str


def chat_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Raises BadRequest for what a chat cannot be given."""
    made: list[dict[str, Any]] = []
    namespaces: dict[str, str | None] = {}
    for at, tool, namespace in _functions(tools):
        if tool.type != "function":
            raise cannot(f"{at}.type", f"tools of the type '{tool.type[:50]}'")
        if not tool.name:
            raise BadRequest("A function has a name.", param=f"{at}.name", code="missing_required_parameter")
        name = tool.name if namespace is None else flat_name(namespace, tool.name)
        if namespaces.setdefault(name, namespace) != namespace:
            # Nobody could tell which of them the model calls.
            raise BadRequest(f"Another function is called '{name}' too.", param=f"{at}.name", code="invalid_value")
        fields = {"name": name, "description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
        made.append({"type": "function", "function": {key: one for key, one in fields.items() if one is not None}})
    if len(made) > MOST_TOOLS:
        raise BadRequest(f"There are more than {MOST_TOOLS} functions.", param="tools", code="invalid_value")
    return made


def leave_out_web_search(tools: Sequence[Tool], choice: str | dict[str, Any] | None) -> list[Tool]:
    """The tools without OpenAI's search of the web, which coding clients offer to every model unasked.

    A model that is not given it does without; the response shows which tools it had. Raises BadRequest when the choice
    leaves it no other.
    """
    kept = [tool for tool in tools if not tool.type.startswith("web_search")]
    if len(kept) < len(tools):
        if isinstance(choice, dict):
            chat_tool_choice(choice)
        elif choice == "required" and not kept:
            raise cannot("tool_choice", "a choice that needs OpenAI's search of the web")
    return kept


def full_names(tools: Sequence[Tool]) -> Mapping[str, FullName]:
    """Of the functions in namespaces, by the names that a chat calls them."""
    return {
        flat_name(namespace, tool.name): FullName(namespace, tool.name)
        for _, tool, namespace in _functions(tools)
        if namespace is not None and tool.name
    }


def _functions(tools: Sequence[Tool]) -> Iterator[tuple[str, Tool, str | None]]:
    """Where each stands, and the namespace that it is in."""
    for index, tool in enumerate(tools):
        if tool.type != "namespace":
            yield f"tools[{index}]", tool, None
            continue
        for inner, one in enumerate(tool.tools or ()):
            yield f"tools[{index}].tools[{inner}]", one, tool.name or ""


def flat_name(namespace: str, name: str) -> str:
    """The one name of a function in a namespace; the same at every request of a conversation."""
    flat = f"{namespace}__{name}"
    if len(flat) <= _LONGEST_NAME:
        return flat
    digest = hashlib.sha256(flat.encode()).hexdigest()[:_DIGEST_LETTERS]
    return f"{flat[: _LONGEST_NAME - _DIGEST_LETTERS - 1]}_{digest}"


def chat_tool_choice(choice: str | dict[str, Any]) -> Any:
    if isinstance(choice, str):
        return choice
    if choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    raise cannot("tool_choice", "this choice of a tool")


def show_tool(tool: Tool) -> dict[str, Any]:
    """As the response repeats it."""
    shown = {name: value for name, value in msgspec.to_builtins(tool).items() if value is not None}
    if tool.tools is not None:
        return shown | {"tools": [show_tool(one) for one in tool.tools]}
    # OpenAI's clients want both of these, null or not.
    return {"parameters": None, "strict": None} | shown


def cannot(param: str, what: str) -> BadRequest:
    return BadRequest(f"This gateway does not take {what}.", param=param, code="unsupported_parameter")
