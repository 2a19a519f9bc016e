"""What the documented names of models lead to."""

import pytest

from stellwerk.api.ai_gateway.names import READER, ModelNames, ShortName

SHORTS = {
    "gemma": ShortName(short="gemma", name="google/gemma-3-4b-it"),
    "deepseek": ShortName(short="deepseek", name="deepseek-ai/DeepSeek-OCR"),
}


def names(*known: str, reader: str | None = READER) -> ModelNames:
    return ModelNames(SHORTS, known.__contains__, lambda: reader)


@pytest.mark.parametrize("asked", ["gemma-3-4b-it", "google/gemma-3-4b-it", "gemma", None, ""])
@pytest.mark.parametrize("known", ["gemma-3-4b-it", "google/gemma-3-4b-it", "gemma"])
def test_each_spelling_leads_to_the_model_under_each_of_its_names(asked, known):
    assert names(known).chat(asked).model == known


def test_a_known_model_is_itself():
    both = names("gemma-3-4b-it", "google/gemma-3-4b-it", "other")
    assert both.chat("gemma-3-4b-it").model == "gemma-3-4b-it"
    assert both.chat("other").model == "other"


def test_what_is_not_there_is_refused_by_its_short_name_or_as_it_came():
    assert (names().chat("gemma-3-4b-it").shown, names().chat("gemma-3-4b-it").model) == ("gemma", None)
    assert (names("gemma").chat("gpt-4").shown, names("gemma").chat("gpt-4").model) == ("gpt-4", None)


@pytest.mark.parametrize("asked", ["deepseek-ai/DeepSeek-OCR", "DeepSeek-OCR", "deepseek", None])
def test_pages_are_read_here_when_the_documented_model_is_not_there(asked):
    assert names().ocr(asked).model == READER
    assert names("deepseek-ai/DeepSeek-OCR").ocr(asked).model == "deepseek-ai/DeepSeek-OCR"
    assert names(reader=None).ocr(asked).model is None


def test_another_model_is_not_replaced_by_the_reader():
    assert names().ocr("gpt-4").model is None
    assert names("my-vision").ocr("my-vision").model == "my-vision"
    assert names(reader="my-vision").ocr(READER).model is None


def test_chats_never_go_to_the_reader():
    assert names().chat("deepseek").model is None


@pytest.mark.parametrize("asked", ["gemma-3-4b-it", "google/gemma-3-4b-it", "gemma", "my-model", "local/my-model"])
def test_the_documented_name_means_whatever_the_short_name_stands_for(asked):
    short = ShortName(short="gemma", name="local/my-model", documented="google/gemma-3-4b-it")
    mine = ModelNames({"gemma": short}, ("my-model",).__contains__, lambda: None)
    assert mine.chat(asked).model == "my-model"
