import pytest

from stellwerk.engines.failure import clean, exit_reason

LOADING = [
    "0.00.008.671 E llama_model_load: error loading model: tensor 'a.weight' data is not within the file bounds",
    "0.00.008.689 E llama_model_load_from_file_impl: failed to load model",
    "Failed to init server, please check the input params.",
]


@pytest.mark.parametrize(
    ("status", "output", "reason"),
    [
        (3, LOADING, "tensor 'a.weight' data is not within the file bounds"),
        (
            3,
            ["0.1 W srv: slow", "0.2 E srv    start: couldn't bind HTTP server socket"],
            "couldn't bind HTTP server socket",
        ),
        (
            1,
            ["llama_model_load: error loading model: unknown model architecture: 'x'"],
            "unknown model architecture: 'x'",
        ),
        (1, ["error: invalid argument: --x"], "error: invalid argument: --x"),
        (2, ["all is well"], "it ended with status 2"),
        (-9, [], "it was ended by SIGKILL"),
        (-6, ["GGML_ASSERT(x) failed"], "it was ended by SIGABRT: GGML_ASSERT(x) failed"),
        (-250, [], "it was ended by signal 250"),
    ],
)
def test_the_reason_is_the_first_cause(status: int, output: list[str], reason: str):
    assert exit_reason(status, output) == reason


def test_a_reason_shows_no_path_no_hidden_text_and_no_control_characters():
    line = "failed to open '/home/me/my models/x.gguf', /srv/a.gguf and /odd dir/y.gguf\x1b[31m key s3cret"
    shown = clean(line, ["/odd dir/y.gguf", "s3cret"])
    assert "/" not in shown
    assert "s3cret" not in shown
    assert "\x1b" not in shown
    assert len(clean("x " * 10_000)) <= 240
