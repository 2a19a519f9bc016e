from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.plan import Price
from stellwerk.providers.registry import builtin_models, load, nearest, read_registry

BUILTIN = builtin_models()
BY_SHORTCODE = {model.shortcode: model for model in BUILTIN}
MAMMOUTH = "https://api.mammouth.ai/v1/chat/completions"
ROW = f"my-model;mine;{MAMMOUTH};MAMMOUTH_API_KEY;32000;4096;0.3;0.9;0;1.5"
KEYS = {
    "https://api.mammouth.ai/v1": "MAMMOUTH_API_KEY",
    "https://api.moonshot.ai/v1": "MOONSHOT_API_KEY",
    "https://api.z.ai/api/paas/v4": "ZAI_API_KEY",
}


def row(**changed):
    names = ("id", "shortcode", "endpoint", "variable", "max_in", "max_out", "in_cost", "out_cost", "low", "high")
    fields = dict(zip(names, ROW.split(";"), strict=True)) | changed
    return ";".join(fields.values())


def shortcodes(registry):
    return [model.shortcode for model in registry.models]


def test_the_built_in_table_has_61_models_and_nothing_in_it_is_doubtful():
    assert len(BUILTIN) == 61
    text = "\n".join(";".join(fields(model)) for model in BUILTIN)
    assert read_registry(text).models == BUILTIN
    assert read_registry(text).warnings == ()


def fields(model):
    yield from (model.id, model.shortcode, model.endpoint, model.key_variable)
    yield from (str(model.max_input), str(model.max_output), str(model.input_cost), str(model.output_cost))
    yield from (f"{model.temperature[0]:g}", f"{model.temperature[1]:g}", str(model.completion_tokens).lower())


@pytest.mark.parametrize("model", BUILTIN, ids=lambda model: model.shortcode)
def test_every_row_is_sane(model):
    assert model.key_variable == KEYS[model.base_url]
    assert 1_000 <= model.max_input <= 4_000_000
    assert 1_000 <= model.max_output <= 128_000
    assert Decimal(0) < model.input_cost <= 20
    assert model.input_cost / 10 <= model.output_cost <= 100
    assert model.embeds == ("embedding" in model.id)
    low, high = model.temperature
    assert (low, high) in ({(0, 0)} if model.embeds else {(0, 1), (0, 1.5), (0, 2)})
    assert model.completion_tokens == model.id.startswith("gpt-5")
    assert model.price.currency == "USD"


def test_no_two_rows_share_a_name():
    assert len({model.shortcode.casefold() for model in BUILTIN}) == len(BUILTIN)
    assert len({model.id.casefold() for model in BUILTIN}) == len(BUILTIN)
    assert [model.shortcode for model in BUILTIN if model.embeds] == ["embedding-large", "embedding-small"]


@pytest.mark.parametrize(
    ("shortcode", "name", "base_url", "input_cost", "output_cost"),
    [
        ("claude-h", "claude-3-5-haiku-20241022", "https://api.mammouth.ai/v1", "0.80", "4.00"),
        ("gpt41", "gpt-4.1", "https://api.mammouth.ai/v1", "2.00", "8.00"),
        ("gemini-p", "gemini-2.5-pro", "https://api.mammouth.ai/v1", "2.50", "15.00"),
        ("deepseek-r1", "deepseek-r1-0528", "https://api.mammouth.ai/v1", "3.00", "8.00"),
        ("kimi", "kimi-k2.5", "https://api.moonshot.ai/v1", "0.60", "3.00"),
        ("grok3m", "grok-3-mini", "https://api.mammouth.ai/v1", "0.30", "0.50"),
    ],
)
def test_the_documented_shortcodes_have_the_documented_ids_and_prices(
    shortcode, name, base_url, input_cost, output_cost
):
    model = BY_SHORTCODE[shortcode]
    assert (model.id, model.base_url) == (name, base_url)
    assert (model.input_cost, model.output_cost) == (Decimal(input_cost), Decimal(output_cost))
    per_token = Decimal(10) ** 6
    assert model.price == Price(input=int(model.input_cost * per_token), output=int(model.output_cost * per_token))


@pytest.mark.parametrize(
    "text",
    [
        "claude-h,gpt41,kimi",
        "claude-h,gpt41,kimi\n",
        "\ufeffclaude-h, gpt41,\r\n kimi\r\n",
        "claude-h\ngpt41\n\nkimi\n",
        "claude-h gpt41 kimi",
        "# mine; not the others\nCLAUDE-H,Gpt41  # two\n,kimi,,claude-h",
        "claude-3-5-haiku-20241022,GPT-4.1,kimi-k2.5",
    ],
)
def test_a_whitelist_chooses_from_the_built_in_models(text):
    registry = read_registry(text)
    assert shortcodes(registry) == ["claude-h", "gpt41", "kimi"]
    assert registry.models[0] == BY_SHORTCODE["claude-h"]
    assert registry.warnings == ()


def test_an_unknown_shortcode_is_named_with_the_nearest_known_ones_and_ignored():
    registry = read_registry("claude-h,\nclaude-haiku,gpt-41\nxyzzy")
    assert shortcodes(registry) == ["claude-h"]
    haiku, gpt, nothing = registry.warnings
    assert haiku.startswith("line 2: there is no model 'claude-haiku'; did you mean claude-")
    assert gpt.startswith("line 2: there is no model 'gpt-41'; did you mean gpt41")
    assert nothing == "line 3: there is no model 'xyzzy'"


def test_models_of_an_ollama_are_no_unknown_shortcodes():
    assert read_registry("kimi,ollama-qwen3,OLLAMA-gemma3-4b").warnings == ()


@pytest.mark.parametrize("text", ["", "\n # nothing\n", "nobody"])
def test_a_whitelist_without_a_known_name_offers_nothing_and_says_so(text):
    registry = read_registry(text)
    assert registry.models == ()
    assert registry.warnings[-1] == "it names no known model, so it offers none"


def test_a_table_takes_the_place_of_the_built_in_one():
    registry = read_registry(
        f"\ufeff# id;shortcode\r\nid;shortcode;endpoint\r\n\r\n{ROW}\r\n{row(id='b', shortcode='')}"
    )
    mine, other = registry.models
    assert (mine.id, mine.shortcode, mine.base_url) == ("my-model", "mine", "https://api.mammouth.ai/v1")
    assert (mine.max_input, mine.max_output, mine.temperature) == (32000, 4096, (0.0, 1.5))
    assert (mine.input_cost, mine.output_cost, mine.completion_tokens) == (Decimal("0.3"), Decimal("0.9"), False)
    assert (other.id, other.shortcode) == ("b", "b")
    assert registry.warnings == ()


@pytest.mark.parametrize(
    ("end", "flag"), [("", False), (";", False), (";true", True), (";TRUE", True), (";false", False)]
)
def test_an_eleventh_field_says_which_limit_the_model_takes(end, flag):
    assert read_registry(ROW + end).models[0].completion_tokens is flag


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a;b;c", "it has 3 fields in the place of 10 or 11"),
        (ROW + ";true;x", "it has 12 fields in the place of 10 or 11"),
        (ROW + ";yes", "the last field is neither true nor false"),
        (row(id=""), "the id has not"),
        (row(id="two words"), "the id has not"),
        (row(id="\u202emodel"), "the id has not"),
        (row(shortcode="../x"), "the shortcode has not"),
        (row(endpoint="https://api.mammouth.ai/v1"), "the endpoint, a URL that ends in /chat/completions"),
        (row(endpoint="ftp://a/chat/completions"), "the endpoint, a URL"),
        (row(endpoint="https://user:canary@a/chat/completions"), "the endpoint, a URL"),
        (row(endpoint="https://a/v1?key=canary/chat/completions"), "the endpoint, a URL"),
        (row(endpoint="https://[canary]/chat/completions"), "the endpoint names no host and port"),
        (row(endpoint="https://[:::]/chat/completions"), "the endpoint names no host and port"),
        (row(endpoint="https://a:99999/chat/completions"), "the endpoint names no host and port"),
        (row(variable="sk-canary"), "the name of the variable for the key has not"),
        (row(max_in="-1"), "a number of tokens is not"),
        (row(max_out="4k"), "a number of tokens is not"),
        (row(max_out="9" * 5000), "a number of tokens is not"),
        (row(in_cost="0,30"), "a cost has not"),
        (row(out_cost="0.0000001"), "a cost has not"),
        (row(out_cost="NaN"), "a cost has not"),
        (row(low="1", high="0"), "the temperatures are no range from 0 to 10"),
        (row(high="11"), "the temperatures are no range from 0 to 10"),
        (row(low="-1"), "a temperature has not"),
        (row(id="other", shortcode="GOOD"), "the shortcode GOOD is taken by an earlier line"),
        (row(id="good", shortcode="other"), "the model good stands in an earlier line as good"),
    ],
)
def test_a_row_that_cannot_be_used_is_ignored_with_its_line_and_never_repeats_a_secret(line, reason):
    registry = read_registry(f"# mine\n{row(id='good', shortcode='good')}\n{line}\n")
    assert shortcodes(registry) == ["good"]
    [warning] = registry.warnings
    assert warning.startswith(f"line 3 is ignored: {reason}")
    assert "canary" not in warning


def test_a_table_without_a_usable_row_offers_nothing_and_says_so():
    registry = read_registry("a;b")
    assert registry.models == ()
    assert registry.warnings[-1] == "no line of it can be used, so it offers no models"


def test_models_and_warnings_are_bounded():
    many = read_registry("\n".join(row(id=f"m{i}", shortcode=f"s{i}") for i in range(2100)))
    assert len(many.models) == 2000
    assert len(many.warnings) == 51
    assert many.warnings[-1] == "50 more such lines"


def test_the_file_on_disk_wins(tmp_path):
    assert load(tmp_path).models == BUILTIN
    (tmp_path / "models.csv").write_text("claude-h,gpt41,gemini-p,deepseek-r1,kimi,grok3m\n", encoding="utf-8-sig")
    assert shortcodes(load(tmp_path)) == ["claude-h", "gpt41", "gemini-p", "deepseek-r1", "kimi", "grok3m"]
    (tmp_path / "models.csv").write_bytes(b"# f\xfcr mich\n" + ROW.encode())
    assert shortcodes(load(tmp_path)) == ["mine"]


def test_a_file_that_cannot_be_read_offers_nothing(tmp_path):
    (tmp_path / "models.csv").mkdir()
    registry = load(tmp_path)
    assert registry.models == ()
    assert registry.warnings[0].startswith("it cannot be read (")
    (tmp_path / "models.csv").rmdir()
    (tmp_path / "models.csv").write_bytes(b"kimi," * 300_000)
    assert load(tmp_path).warnings == ("it is larger than 1 MiB, so it offers no models",)


def test_the_nearest_names_are_found_by_id_too():
    assert nearest("Gemini-2.5-Pro", BUILTIN)[0] == "gemini-p"
    assert nearest("x" * 10_000, BUILTIN) == []


@given(st.text(max_size=400) | st.text(alphabet=";,. \n#\ufeffa1-/:", max_size=200))
def test_any_text_is_read_without_an_error(text):
    registry = read_registry(text)
    assert len(shortcodes(registry)) == len({shortcode.casefold() for shortcode in shortcodes(registry)})


@given(st.lists(st.sampled_from(BUILTIN), min_size=1), st.sampled_from([",", ", ", "\n", ",\r\n", " "]), st.booleans())
def test_a_whitelist_gives_exactly_what_it_names(chosen, separator, loud):
    text = separator.join(model.shortcode for model in chosen)
    registry = read_registry(text.upper() if loud else text)
    assert registry.models == tuple(dict.fromkeys(chosen))
    assert registry.warnings == ()
