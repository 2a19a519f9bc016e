"""A mistake in the config: where it stands and what is wrong. English here; the CLI translates by `code`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Value = str | int | float | tuple[str, ...]
"""What a message is filled with; a tuple holds keys of WORDS, which are joined with "or"."""

MESSAGES: Mapping[str, str] = {
    "cannot_read": "the file cannot be read: {reason}",
    "file_too_large": "the file is larger than {limit} bytes",
    "not_utf8": "the file is not UTF-8 text",
    "not_yaml": "this is not valid YAML: {reason}",
    "too_deep": "nested deeper than {limit} levels, or an alias that contains itself",
    "too_many": "more than {limit} keys and values, aliases counted where they are used",
    "bad_tag": "the tag {tag} is not allowed here",
    "bad_key": "a key must be text",
    "bad_merge": "only sections can be merged with <<",
    "duplicate_key": "this key is already set in line {line}",
    "bad_variable": "after ${{ must follow the name of a variable and }}; write $${{ for the two characters themselves",
    "missing_variable": "the environment variable {name} is not set",
    "unknown_key": "unknown key {name}",
    "unknown_key_near": "unknown key {name}; did you mean {near}?",
    "unknown_setting": "no setting belongs to this environment variable",
    "unknown_setting_near": "no setting belongs to this environment variable; did you mean {near}?",
    "missing_key": "the key {name} is missing",
    "wrong_type": "expected {expected}, found {found}",
    "not_a_choice": "{value} is not one of {choices}",
    "not_a_choice_near": "{value} is not one of {choices}; did you mean {near}?",
    "too_small": "{value} is too small: the least is {limit}",
    "not_above": "{value} is too small: it must be more than {limit}",
    "too_big": "{value} is too large: the most is {limit}",
    "too_few": "expected at least {limit}, found {count}",
    "too_much": "expected at most {limit}, found {count}",
    "too_long": "expected at most {limit} characters, found {count}",
    "text_characters": "the text holds control characters",
    "bad_form": "{value} is not {form}",
    "bad_name": "the name is not {form}",
    "public_bind": "{host} can be reached from other machines: name the hosts that clients use in "
    "listen.allowed_hosts, or set listen.behind_proxy to true when a reverse proxy checks them",
    "ports_past_end": "the {slots} engine slots need the ports {first} to {last}, and ports end at 65535",
    "port_taken": "port {port} belongs to the engine slots ({first} to {last})",
    "not_a_network": "{network} is not an address or a network: 10.0.0.0/8 is one, 10.0.0.7/8 is not",
    "half_a_certificate": "a certificate and its key belong together: set both or none",
    "target_past_head": "guard.target_bytes is larger than guard.head_bytes, of which it is a part",
    "url_scheme": "the address must start with http:// or https://",
    "url_host": "the address names no valid host or port",
    "url_userinfo": "the address must not hold a user or password; a key belongs into api_key",
    "url_query": "the address must not hold a query or fragment",
    "url_path": "an origin is scheme, host and port, without a path",
    "origin_form": "{origin} is not an origin such as https://app.example.org, http://localhost:3000 or "
    "chrome-extension://abcdefghijklmnop",
    "origin_port": "browsers leave the usual port of a scheme out: write {origin} without its port",
    "origin_wildcard": "{origin} is not one origin: * stands alone for every page, any other is written out",
    "origin_null": "null cannot be allowed: every file and every sandboxed frame has this origin",
    "url_characters": "the address holds blanks or characters outside ASCII",
    "unknown_vendor": "no vendor is called {name}; an upstream of your own needs base_url",
    "unknown_vendor_near": "no vendor is called {name}; did you mean {near}? An upstream of your own needs base_url",
    "own_provider": "this is the name of the models that run on this machine",
    "secret_characters": "the value holds blanks, line breaks or characters outside ASCII",
    "header_name": "this header is set by the gateway itself",
    "header_characters": "the value holds line breaks or characters outside ASCII",
    "own_engine": "{name} is an engine that Stellwerk knows by itself; take another name",
    "unknown_engine": "no engine is called {name}; one of your own belongs into engines.commands",
    "unknown_placeholder": "{{{name}}} is not a placeholder; model, host, port, key, context, threads, parallel and "
    "mmproj are",
    "weights": "each of the {targets} targets needs a weight",
    "model_loop": "{model} leads back to itself through its targets",
}

WORDS: Mapping[str, str] = {
    "or": "or",
    "null": "null",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "text": "text",
    "list": "a list",
    "section": "a section of keys",
    "host": "a host name or an address, without port and path",
    "name": "a name: a to z, 0 to 9, _ and -, at most 32, a letter or digit first",
    "model": "a model's name: 1 to 200 visible ASCII characters",
    "target": "a model's name or provider/model: 1 to 240 visible ASCII characters",
    "header": "the name of a header",
    "path": "a path",
    "argument": "an argument: 1 to 4096 characters without line breaks",
    "variable": "the name of an environment variable",
    "currency": "a currency: three capital letters",
    "network": "an address or a network such as 10.0.0.0/8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigProblem:
    file: str
    """The config file, or the environment variable that holds the value."""
    line: int
    """From 1; 0 when there is none."""
    column: int
    key: str
    """Dotted, like `models.fast.targets[0]`; empty when the file as a whole is meant."""
    code: str
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @property
    def message(self) -> str:
        return self.worded(MESSAGES, WORDS)

    def worded(self, messages: Mapping[str, str], words: Mapping[str, str]) -> str:
        """The message in a language that has the same keys as MESSAGES and WORDS."""
        return messages[self.code].format_map({name: _shown(value, words) for name, value in self.values.items()})

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class ConfigError(Exception):
    """The config cannot be used; `problems` holds everything that was found, never nothing."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def _shown(value: Value, words: Mapping[str, str]) -> str:
    if isinstance(value, tuple):
        return f" {words['or']} ".join(words[word] for word in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
