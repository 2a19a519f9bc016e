"""Images that a chat names by their address: where they stand in its messages, and their data put in their place."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from stellwerk.core.call import Call, Wire

_SCHEMES = ("http://", "https://")
_STARTS = (b'"http', b'"HTTP', b'"Http')
"""Whoever writes it yet otherwise is told by the provider that this is no address."""
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class ImageLink(msgspec.Struct, frozen=True, kw_only=True):
    """One image that is named by an address."""

    url: str
    number: int
    """Counted over all images of the request, from 1: how its sender finds it in whatever API he speaks."""
    message: int
    part: int
    bare: bool
    """The address stands where others have an object with it."""

    @property
    def place(self) -> str:
        return f"messages[{self.message}].content[{self.part}].image_url"


def find_image_links(call: Call) -> Sequence[ImageLink]:
    """In the order of the messages. None in a body that cannot be read: whoever answers it will say so.

    OpenAI's chats alone name images by address; Ollama's API has data only.
    """
    messages = call.fields.get("messages")
    if messages is None or call.wire is not Wire.OPENAI_CHAT:
        return ()
    text = bytes(messages)
    # A backslash may be an escape that hides the word. Images in the request itself are long: such are not read whole.
    if b"\\u" not in text and (b"image_url" not in text or not any(start in text for start in _STARTS)):
        return ()
    try:
        read = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return ()
    return _links(read)


def _links(messages: Any) -> list[ImageLink]:
    links: list[ImageLink] = []
    number = 0
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(part, dict) or part.get("type") != "image_url":
                continue
            number += 1
            given = part.get("image_url")
            url = given.get("url") if isinstance(given, dict) else given
            if isinstance(url, str) and url[:8].lower().startswith(_SCHEMES):
                links.append(ImageLink(url=url, number=number, message=index, part=place, bare=given is url))
    return links


def put_in(messages: msgspec.Raw, links: Sequence[ImageLink], data_urls: Mapping[str, bytes]) -> msgspec.Raw:
    """The messages with each link replaced by what `data_urls` has for it; nothing else of them is changed."""
    rows: list[Any] = _read_list(messages)
    for index, group in groupby(links, key=lambda link: link.message):
        message: dict[str, Any] = dict(_read_object(rows[index]))
        parts: list[Any] = _read_list(message["content"])
        for link in group:
            part: dict[str, Any] = dict(_read_object(parts[link.part]))
            url = msgspec.Raw(b'"%b"' % data_urls[link.url])
            part["image_url"] = url if link.bare else {**_read_object(part["image_url"]), "url": url}
            parts[link.part] = part
        message["content"] = parts
        rows[index] = message
    return msgspec.Raw(_encode(rows))
