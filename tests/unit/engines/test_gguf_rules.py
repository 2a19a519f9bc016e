import pytest

from stellwerk.engines.gguf_reader import ARRAY, FLOAT32, INT32, STRING, UINT16, UINT32, InvalidGguf
from stellwerk.engines.gguf_rules import Header, check_values

LLAMA = {"general.architecture": "llama"}
TOKENS, TYPES, SCORES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores"))


def check(values=None, kinds=None, lists=None, **more):
    lists = lists or {}
    check_values(
        Header(
            values=LLAMA | (values or {}),
            kinds=dict.fromkeys(lists, ARRAY) | (kinds or {}),
            lists=lists,
            tensors={},
            **more,
        )
    )


def test_what_models_say_is_accepted():
    check({"llama.block_count": 32, "llama.context_length": 131_072, "llama.attention.layer_norm_rms_epsilon": 1e-5})
    check(
        {"llama.expert_count": 8, "llama.expert_used_count": 2, "llama.nextn_predict_layers": 1, "llama.block_count": 2}
    )
    check(kinds={"split.no": UINT16, "split.count": UINT16, "split.tensors.count": INT32})
    check(lists={TOKENS: (STRING, 9), TYPES: (INT32, 9), SCORES: (FLOAT32, 9)})
    check({"tokenizer.ggml.model": "llama"}, byte_tokens=True)
    check({"general.architecture": "wavtokenizer-dec", "tokenizer.ggml.model": "none"})
    check({"tokenizer.chat_template": "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}" * 100})


@pytest.mark.parametrize(
    "values",
    [
        {"llama.block_count": 0},
        {"llama.block_count": 100_000},
        {"llama.context_length": 1},
        {"llama.context_length": 1 << 31},
        {"llama.expert_count": 3},
        {"llama.expert_used_count": 1},
        {"llama.expert_count": 2, "llama.expert_used_count": 3},
        {"llama.expert_count": -1, "llama.expert_used_count": -1},
        {"llama.nextn_predict_layers": 3},
        {"llama.attention.layer_norm_rms_epsilon": -1.0},
        {"llama.attention.layer_norm_rms_epsilon": float("nan")},
        {"general.architecture": "bert", "bert.attention.key_length": 100},
        {"general.architecture": "bert", "bert.attention.head_count": 0},
        {"tokenizer.ggml.model": "no_vocab"},
    ],
)
def test_numbers_on_which_the_engine_would_abort_are_refused(values):
    with pytest.raises(InvalidGguf):
        check(values)


@pytest.mark.parametrize("key", ["split.no", "split.count", "split.tensors.count"])
def test_the_keys_of_a_split_model_have_one_type_only(key):
    with pytest.raises(InvalidGguf, match="type that nothing expects"):
        check(kinds={key: UINT32})


@pytest.mark.parametrize(
    "lists",
    [
        {TOKENS: (UINT32, 9)},
        {TOKENS: (STRING, 9), TYPES: (INT32, 8)},
        {TOKENS: (STRING, 9), TYPES: (UINT16, 9)},
        {TOKENS: (STRING, 9), SCORES: (INT32, 9)},
        {TOKENS: (STRING, 9), SCORES: (FLOAT32, 10)},
        {SCORES: (FLOAT32, 1)},
    ],
)
def test_every_token_has_one_score_and_one_type(lists):
    with pytest.raises(InvalidGguf, match="vocabulary"):
        check(lists=lists)


def test_a_vocabulary_of_bytes_has_no_tokens_that_are_bytes():
    with pytest.raises(InvalidGguf, match="tokens of a type"):
        check({"tokenizer.ggml.model": "gpt2"}, byte_tokens=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ " + "(" * 5_000,
        "{{ " + "[" * 1_600 + "]" * 1_600 + " }}",
        "{{ " + "not " * 10_000 + "x }}",
        "{{ " + "1+" * 10_000 + "1 }}",
        "{% if x %}" + "{% elif y %}" * 5_000 + "{% endif %}",
        "x" * 100_000,
    ],
)
def test_a_template_that_would_exhaust_the_stack_is_refused(template):
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"):
        with pytest.raises(InvalidGguf, match="chat template"):
            check({key: template})
