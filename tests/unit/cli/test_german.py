"""Whoever reads German gets German: no text of the commands and the console has English words only."""

import ast
import functools
import importlib
import pkgutil
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from typer.main import get_command

import stellwerk.cli
import stellwerk.tui
from stellwerk.cli.help_texts import GERMAN
from stellwerk.cli.main import app
from stellwerk.core import errors
from stellwerk.tui.refusals import BY_CODE, SENTENCES, translated

SOURCE = Path(stellwerk.cli.__file__).parents[1]
MODULES = {
    path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
}
PROSE = re.compile(r"[^\W\d_]{2,}[,.:;]? [^\W\d_`{<(]{2,}")
"""Two words one after the other."""

CATALOGUES = {
    "cli/language.py", "cli/help_texts.py", "cli/german_help.py", "cli/webhook_view.py", "tui/refusals.py",
    "tui/folder_sentences.py", "tui/sentences.py",
}  # fmt: skip
"""Their sentences are keys of German ones, or their translations."""
NOT_FOR_PEOPLE = re.compile(
    r"(SELECT|PRAGMA| WHERE| ORDER BY) |-H .Authorization: Bearer |authorization: Bearer |accept: |content-type: |"
    r"accept-encoding: |text/event-stream|tab: complete$|set enable-bracketed-paste|stellwerk chat$|bold red$|"
    r"user-agent: |\s*Screen \{|"
    # How AI Gateway says that it has no such route.
    r"Not Found$|Method Not Allowed$|There is nothing at $"
)
LOWER = (
    "auth/", "cli/", "engines/", "jobs/", "ledger/", "limits/", "pipeline/dispatch.py", "pipeline/gateway.py",
    "records/audit.py", "routing/plan.py", "storage/", "webhooks/", "api/jobs/", "api/ocr/performer.py",
    "api/ocr/sources.py", "api/_guard.py", "api/admin/downloads.py", "api/admin/loads.py", "api/admin/local_models.py",
    "api/admin/models.py", "api/admin/slots.py", "http/certificates.py", "http/egress.py", "http/pool.py",
    "http/serving.py", "providers/_refusals.py", "providers/openai_compatible.py",
)  # fmt: skip
"""Whose refusals the commands and the console show."""
TOLD_OTHERWISE = {
    "Web pages of other sites may not use this without a key.",
    # The first value is `certificate` or `private key`, and each has a sentence of its own.
    "The x in x cannot be read: x.", "The x x does not exist.",
}  # fmt: skip
REFUSING = {
    "CertificateError",
    "StorageRefused",
    "unavailable",
    "_bad",
    *(name for name in dir(errors) if name[0].isupper()),
}
"""What makes a refusal of its first argument; the errors that these modules derive are found below."""


@functools.cache
def refusals() -> dict[str, str]:
    """The default code of everything that makes a refusal."""
    codes = {name: getattr(getattr(errors, name, None), "code", "") for name in REFUSING}
    classes = [node for tree in MODULES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in range(3):
        for node in classes:
            for base in node.bases:
                if getattr(base, "id", "") in codes:
                    own = [
                        one.value for one in node.body if isinstance(one, ast.Assign) and one.targets[0].id == "code"
                    ]
                    codes.setdefault(node.name, own[0].value if own else codes[base.id])
    return codes


def sentences(node: ast.expr) -> Iterator[str]:
    """The English sentences that an argument may be, an `x` for each value in them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    elif isinstance(node, ast.BoolOp):
        for inner in node.values:
            yield from sentences(inner)
    elif isinstance(node, ast.IfExp):
        yield from (*sentences(node.body), *sentences(node.orelse))


def code_of(call: ast.Call, default: str) -> str:
    stated = [keyword.value for keyword in call.keywords if keyword.arg == "code"] or call.args[1:2]
    constants = [one.value for one in stated if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return constants[0] if constants else default


def raised() -> Iterator[tuple[str, str, str]]:
    codes = refusals()
    for name, tree in MODULES.items():
        if name.startswith(LOWER):
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and node.args and (maker := getattr(node.func, "id", "")) in codes:
                    for sentence in sentences(node.args[0]):
                        yield f"{name}:{node.lineno}", sentence, code_of(node, codes[maker])


def told_elsewhere(tree: ast.AST) -> set[int]:
    """By identity the strings of docstrings, of texts in two languages, of help and of refusals."""
    found: set[int] = set()
    codes = refusals()
    for node in ast.walk(tree):
        keys = (
            {key.value for key in node.keys if isinstance(key, ast.Constant)} if isinstance(node, ast.Dict) else set()
        )
        if (
            (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or {"en", "de"} <= keys
            or (isinstance(node, ast.keyword) and node.arg == "help")
            or (isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"Flag", *codes})
        ):
            found.update(id(inner) for inner in ast.walk(node))
    return found


def catalogues() -> Iterator[tuple[str, Mapping[str, Mapping[str, str]]]]:
    for package in (stellwerk.cli, stellwerk.tui):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if (
                    isinstance(value, dict)
                    and value
                    and all(isinstance(one, dict) and "en" in one for one in value.values())
                ):
                    yield f"{module.name}.{name}", value


def placeholders(template: str) -> list[str]:
    return sorted({name for _, name, _, _ in string.Formatter().parse(template) if name is not None})


def helped(command, path="stellwerk") -> Iterator[tuple[str, str]]:
    """Every help text below a command, and where it stands."""
    for said in (command.help, command.short_help, *(getattr(one, "help", None) for one in command.params)):
        if said:
            yield path, said
    for name, inner in getattr(command, "commands", {}).items():
        yield from helped(inner, f"{path} {name}")


@pytest.fixture(scope="module")
def help_texts():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LC_ALL", "C")
        return list(helped(get_command(app)))


def test_every_command_argument_and_option_has_german_help(help_texts):
    assert [(path, said) for path, said in help_texts if said not in GERMAN] == []


def test_no_german_help_is_for_a_text_that_is_gone(help_texts):
    assert GERMAN.keys() - {said for _, said in help_texts} == {"Show this message and exit."}


@pytest.mark.parametrize(
    "path", [name for name in MODULES if name.startswith(("cli/", "tui/")) and name not in CATALOGUES]
)
def test_no_sentence_stands_outside_of_the_catalogues(path):
    known = told_elsewhere(MODULES[path])
    assert [
        (node.lineno, node.value)
        for node in ast.walk(MODULES[path])
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in known
        if PROSE.search(node.value) and not NOT_FOR_PEOPLE.match(node.value)
    ] == []


def test_every_text_of_a_catalogue_is_there_in_both_languages_with_the_same_placeholders():
    found = dict(catalogues())
    assert len(found) > 30
    assert [
        (name, key)
        for name, texts in found.items()
        for key, text in texts.items()
        if set(text) != {"en", "de"} or placeholders(text["en"]) != placeholders(text["de"])
        # The German tells what all messages of this kind have in common.
        if (name, key) != ("stellwerk.cli.import_api_keys.TEXTS", "url_refused")
    ] == []


def test_every_refusal_that_a_command_may_meet_has_its_german():
    found = list(raised())
    assert len(found) > 150
    assert [each for each in found if translated(*each[1:]) == each[1] and each[1] not in TOLD_OTHERWISE] == []


@pytest.mark.parametrize("english", SENTENCES)
def test_a_german_sentence_has_a_place_for_each_value(english):
    values = [f"<{number}>" for number in range(english.count("{}"))]
    said = translated(english.format(*values))
    assert [value for value in values if value not in said] == []


def test_german_by_code_has_no_places_for_values():
    assert [code for code, german in BY_CODE.items() if placeholders(german)] == []
