from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.config.problems import ConfigError, ConfigProblem
from stellwerk.config.reading import FILE_BYTES, data_folder, find, load, load_beside, read, restart_needed
from stellwerk.config.settings import Config, Listen
from stellwerk.config.tree import Place

Write = Callable[[str], Path]
Wrong = Callable[..., list[ConfigProblem]]


def test_without_file_and_variables_there_are_the_defaults(write: Write):
    assert load(None, {}) == Config()
    assert load(write(""), {}) == Config()


def test_all_that_is_set_is_read(write: Write):
    config = load(
        write(
            "listen: {host: 127.0.0.1, port: 0}\n"
            "upstream: {connect_seconds: 2, attempts: 1}\n"
            "providers:\n"
            "  mine:\n"
            "    vendor: vllm\n"
            "    api_key: ${KEY}\n"
            "    api_keys: ['${KEY}-2', sk-3]\n"
            "    models: [a, b/c]\n"
            "    headers: {X-Team: red}\n"
            "    first_byte_seconds: 1.5\n"
            "models:\n"
            "  gpt-4.1: {targets: [mine/a, demo], description: Ours}\n"
        ),
        {"KEY": "sk-1"},
    )
    mine = config.providers["mine"]
    assert mine.api_key is not None
    assert mine.api_key.reveal() == "sk-1"
    assert [key.reveal() for key in mine.api_keys] == ["sk-1-2", "sk-3"]
    assert mine.headers["X-Team"].reveal() == "red"
    assert (mine.vendor, mine.models, mine.first_byte_seconds) == ("vllm", ("a", "b/c"), 1.5)
    assert config.models["gpt-4.1"].targets == ("mine/a", "demo")
    assert isinstance(config.upstream.connect_seconds, float)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbflisten:\r\n  port: 1\r\n")
    assert load(path, {}).listen.port == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    for path in (tmp_path / "none.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        (problem,) = caught.value.problems
        assert (problem.file, problem.code) == (str(path), "cannot_read")


def test_a_large_file_is_refused_before_it_is_parsed(wrong: Wrong):
    assert wrong("#" * (FILE_BYTES + 1))[0].code == "file_too_large"


def test_broken_utf8_is_refused_with_its_place(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"log:\n  level: \xff\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.code) == (2, 10, "not_utf8")


def test_the_data_folder_is_named_or_the_place_of_the_platform(tmp_path: Path):
    assert data_folder(tmp_path, {"STELLWERK_DATA": "/other"}) == tmp_path
    assert data_folder(None, {"STELLWERK_DATA": "/other"}) == Path("/other")
    assert data_folder(None, {"STELLWERK_DATA": "~/x"}) == Path.home() / "x"
    assert data_folder(None, {}).name == "stellwerk"


def test_the_config_file_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, data = tmp_path / "here", tmp_path / "data"
    here.mkdir()
    data.mkdir()
    monkeypatch.chdir(here)
    assert find(None, {}, data) is None
    (data / "stellwerk.yaml").touch()
    assert find(None, {}, data) == data / "stellwerk.yaml"
    (here / "stellwerk.yaml").touch()
    assert find(None, {}, data) == Path("stellwerk.yaml")
    environ = {"STELLWERK_CONFIG": "/named/by/variable"}
    assert find(None, environ, data) == Path("/named/by/variable")
    assert find(Path("explicit"), environ, data) == Path("explicit")


def test_origins_tell_where_each_value_comes_from(write: Write):
    path = write("listen:\n  port: 1\nmodels:\n  a: {targets: [b]}\n")
    origins = read(path, {"STELLWERK_LOG__CALLS": "false"}).origins
    assert origins == {
        "listen.port": Place(str(path), 2, 9),
        "log.calls": Place("STELLWERK_LOG__CALLS"),
        "models.a.targets": Place(str(path), 4, 16),
    }


def test_only_the_listener_needs_a_restart():
    old = Config()
    new = Config(listen=Listen(port=1, behind_proxy=True), drain_seconds=1)
    assert restart_needed(old, new) == ["listen.port", "listen.behind_proxy"]
    assert restart_needed(old, Config(drain_seconds=1)) == []


KEYS = st.sampled_from(
    ["listen", "port", "host", "providers", "models", "targets", "api_key", "headers", "log", "level", "x", "<<", "a.b"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "info", "${HOME}", "${X}", "$${X}", "127.0.0.1", "http://a"])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random") / "stellwerk.yaml"


@given(tree=st.dictionaries(KEYS, VALUES, max_size=5), flow=st.booleans())
def test_no_tree_makes_loading_fail_otherwise(scratch: Path, tree: dict[str, object], flow: bool):
    text = yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True)
    scratch.write_text(text, encoding="utf-8", errors="surrogateescape")
    _load_or_refuse(scratch, {"HOME": "/home"})


@given(data=st.binary(max_size=200))
def test_no_bytes_make_loading_fail_otherwise(scratch: Path, data: bytes):
    scratch.write_bytes(data)
    _load_or_refuse(scratch, {})


@given(
    name=st.sampled_from(["LISTEN", "LISTEN__PORT", "PROVIDERS__A__API_KEY", "MODELS", "LOG__LEVEL", "X", "__"]),
    value=st.text(max_size=20),
)
def test_no_variable_makes_loading_fail_otherwise(name: str, value: str):
    _load_or_refuse(None, {f"STELLWERK_{name}": value})


def _load_or_refuse(path: Path | None, environ: dict[str, str]) -> None:
    try:
        assert isinstance(load(path, environ), Config)
    except ConfigError as error:
        lines = [str(problem) for problem in error.problems]
    else:
        return
    assert lines
    assert all(line.isprintable() for line in lines)


def test_a_command_beside_the_gateway_needs_none_of_its_variables(tmp_path):
    file = tmp_path / "stellwerk.yaml"
    file.write_text("listen: {port: 4100}\nhub: {token: '${HUB_TOKEN}'}\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        load(file, {})
    assert load_beside(file, {"STELLWERK_DRAIN_SECONDS": "7"}).drain_seconds == 7
    assert load_beside(file, {}).listen.port == 4100


def test_where_a_lacking_variable_cannot_be_done_without_it_is_named(tmp_path):
    file = tmp_path / "stellwerk.yaml"
    file.write_text("listen: {port: '${PORT}'}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_beside(file, {})
    assert "missing_variable" in {problem.code for problem in caught.value.problems}
