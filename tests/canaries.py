"""Texts that must stand nowhere in clear, and the search for them in every form that a careless program gives them."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from urllib.parse import quote, quote_plus

KEPT_BY_DESIGN = ("secrets", "admin.key", "chat.key")
"""What in a data folder is there to hold secrets."""


@dataclass(frozen=True)
class Canary:
    name: str
    text: str
    allowed: tuple[str, ...] = ()
    """Beginnings of the places where it may stand."""


@dataclass(frozen=True)
class Hit:
    place: str
    canary: str
    form: str


def forms_of(text: str) -> Iterator[tuple[str, bytes]]:
    """The bytes to look for, each with the name of its form."""
    # Who logs in is looked up in lower case.
    for variant in dict.fromkeys((text, text.lower())):
        yield from _forms_of_whole(variant)
    for part in filter(None, _parts(text)):
        yield "a part of it", part.encode()


def _forms_of_whole(text: str) -> Iterator[tuple[str, bytes]]:
    raw = text.encode()
    escaped = json.dumps(text)[1:-1]
    digest = hashlib.sha256(raw)
    yield "clear", raw
    yield "JSON", escaped.encode()
    yield "JSON", json.dumps(text, ensure_ascii=False)[1:-1].encode()
    yield "JSON in JSON", json.dumps(escaped)[1:-1].encode()
    yield "repr", repr(raw)[2:-1].encode()
    yield "HTML", html.escape(text).encode()
    for quoted in (quote(text), quote(text, safe=""), quote_plus(text)):
        yield "URL", quoted.encode()
        yield "URL", quoted.replace("%", "%25").encode()
    yield "hex", raw.hex().encode()
    yield "hex", raw.hex().upper().encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        # Without what depends on the bytes around it.
        inner = encoded[-(-shift * 4 // 3) : len(encoded) - 4]
        yield "base64", inner
        yield "base64", inner.translate(bytes.maketrans(b"+/", b"-_"))
    yield "SHA-256", digest.hexdigest().encode()
    yield "SHA-256", digest.hexdigest().upper().encode()
    yield "SHA-256", digest.digest()
    yield "SHA-256", base64.b64encode(digest.digest())[:42]


def _parts(text: str) -> Iterable[str]:
    """What is a leak although it is not the whole: a piece of a key's secret part, the signature of a token."""
    if text.startswith("sk-sw-"):
        # The beginning and the last four characters are shown in lists. Whatever is longer than 17 has one of these.
        secret = text[len("sk-sw-0123456789-") :]
        return [secret[start : start + 12] for start in range(0, len(secret) - 11, 6)]
    if text.count(".") == 2:
        return [text.rpartition(".")[2]]
    return [text[: len(text) // 2], text[len(text) // 2 :]] if len(text) >= 24 else []


def search(places: Mapping[str, bytes], canaries: Iterable[Canary]) -> list[Hit]:
    """Every canary that stands where it may not, one form of it for each place."""
    hits = []
    for canary in canaries:
        wanted: dict[bytes, str] = {}
        for form, needle in forms_of(canary.text):
            wanted.setdefault(needle, form)
        for place, content in places.items():
            if not place.startswith(canary.allowed or ("\0",)):
                found = next((form for needle, form in wanted.items() if needle in content), None)
                if found is not None:
                    hits.append(Hit(place, canary.name, found))
    return hits


# --- making them


class Secrets:
    """Every canary so far. All are told apart by their beginning, and none looks like a key of a known vendor."""

    def __init__(self) -> None:
        self.all: list[Canary] = []

    def add(self, name: str, text: str, *allowed: str) -> str:
        self.all.append(Canary(name, text, allowed))
        return text

    def password(self, name: str) -> str:
        return self.add(name, f'Kanari "{name}" +ü% {os.urandom(4).hex()}')

    def chosen_key(self, name: str) -> str:
        return self.add(name, f"Kanari-{name}-{os.urandom(3).hex()}-Qx7-Zt9Lm")

    def unknown_key(self, name: str, *allowed: str) -> str:
        """It looks like one of the gateway's own."""
        return self.add(name, f"sk-sw-aaaaaaaaaa-{token_urlsafe(32)}", *allowed)

    def prompt(self, name: str) -> str:
        return self.add(f"prompt of {name}", f'Kanari "prompt" {name} ü {os.urandom(4).hex()}')


# --- places


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file below a data folder but those that hold secrets by design; database, log of changes and backups."""
    return {
        f"file {path.relative_to(folder)}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in KEPT_BY_DESIGN
    }


def read_process(pid: int, *, environment: bool) -> dict[str, bytes]:
    """What others on the machine may see of a process; empty when it is gone."""
    names = ("cmdline", "environ") if environment else ("cmdline",)
    places = {}
    with suppress(OSError):
        for name in names:
            places[f"process {pid} {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    return places
