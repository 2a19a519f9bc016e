import pytest

from stellwerk.engines.gguf_metadata import LONGEST_TEXT, read_metadata
from stellwerk.engines.gguf_reader import InvalidGguf
from tests.tiny_gguf import write_tiny_chat_model


@pytest.fixture
def model(tmp_path):
    return write_tiny_chat_model(
        tmp_path / "m.gguf", strings={"general.license": "apache-2.0", "x.long": "ä" * 5000, "x.huge": "x" * (2 << 20)}
    )


def test_every_key_has_its_type_and_value_in_the_order_of_the_file(model):
    metadata = read_metadata(model)
    assert metadata[0].key == "general.architecture"
    found = {one.key: (one.type, one.value) for one in metadata}
    assert found["general.license"] == ("string", "apache-2.0")
    assert found["llama.context_length"] == ("uint32", 2048)
    assert found["tokenizer.ggml.add_bos_token"] == ("bool", False)
    assert "im_start" in found["tokenizer.chat_template"][1]


def test_vocabularies_are_only_counted(model):
    found = {one.key: one for one in read_metadata(model)}
    tokens = found["tokenizer.ggml.tokens"]
    assert (tokens.type, tokens.value) == ("array of string", None)
    assert tokens.count == found["llama.vocab_size"].value
    assert found["tokenizer.ggml.token_type"].value is None


def test_long_texts_are_cut_and_endless_ones_left_out(model):
    found = {one.key: one for one in read_metadata(model)}
    assert (found["x.long"].value, found["x.long"].count) == ("ä" * LONGEST_TEXT, 10_000)
    assert (found["x.huge"].value, found["x.huge"].count) == (None, 2 << 20)


def test_a_cut_or_foreign_file_is_refused_at_every_length(model, tmp_path):
    data, part = model.read_bytes()[:4000], tmp_path / "part.gguf"
    for length in range(0, 600, 7):
        part.write_bytes(data[:length])
        with pytest.raises(InvalidGguf):
            read_metadata(part)
