from collections.abc import Iterator

import pytest
from msgspec import inspect

from stellwerk.config.checking import plain_type
from stellwerk.config.problems import WORDS
from stellwerk.config.settings import Config, Provider
from stellwerk.core.secrets import Secret


def fields(kind: inspect.Type) -> Iterator[inspect.Field]:
    kind = plain_type(kind)
    if isinstance(kind, inspect.DictType):
        yield from fields(kind.value_type)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield field
            yield from fields(field.type)


FIELDS = list(fields(inspect.type_info(Config)))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_is_described_in_a_sentence(field: inspect.Field):
    assert isinstance(field.type, inspect.Metadata)
    description = (field.type.extra_json_schema or {})["description"]
    assert description.endswith(".")


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_number_text_and_collection_has_a_bound(field: inspect.Field):
    kind = plain_type(field.type)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        assert kind.le is not None
        assert kind.ge is not None or kind.gt is not None
    if isinstance(kind, inspect.StrType):
        assert kind.max_length or kind.pattern
    if isinstance(kind, inspect.VarTupleType | inspect.DictType):
        assert kind.max_length


def test_every_pattern_has_a_wording_for_what_it_expects():
    forms = {value["form"] for value in _extras(inspect.type_info(Config))}
    assert forms
    assert forms <= set(WORDS)


def _extras(kind: inspect.Type) -> Iterator[dict[str, str]]:
    if isinstance(kind, inspect.Metadata):
        if kind.extra and "form" in kind.extra:
            yield kind.extra
        yield from _extras(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _extras(member)
    elif isinstance(kind, inspect.VarTupleType):
        yield from _extras(kind.item_type)
    elif isinstance(kind, inspect.DictType):
        yield from _extras(kind.key_type)
        yield from _extras(kind.value_type)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from _extras(field.type)


def test_secrets_do_not_show():
    provider = Provider(api_key=Secret("sk-one"), api_keys=(Secret("sk-three"),), headers={"X-Key": Secret("sk-two")})
    assert "sk-" not in repr(Config(providers={"a": provider}))


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Config().listen.port = 1  # type: ignore[misc]
