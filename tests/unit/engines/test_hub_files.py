import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.errors import BadRequest, GatewayError, NotFound
from stellwerk.engines.hub_files import HubFile, choose_files, is_later_part, kind_of, parse_reference


def repository(*names):
    return [HubFile(name=name, size=100, sha256="a" * 64, kind=kind_of(name)) for name in names]


def choose(reference, *names):
    wanted = parse_reference(reference)
    return choose_files(wanted.repo, "commit", repository(*names), wanted)


def names(choice):
    return [file.name for file in choice.files]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user/repo", ("user/repo", None, None, None)),
        ("hf.co/user/repo", ("user/repo", None, None, None)),
        ("HF.co/user/repo:latest", ("user/repo", None, None, None)),
        ("huggingface.co/user/repo:Q8_0", ("user/repo", None, "Q8_0", None)),
        ("https://huggingface.co/user/repo", ("user/repo", None, None, None)),
        ("https://huggingface.co/user/repo/blob/main/a/b.gguf", ("user/repo", "main", None, "a/b.gguf")),
        ("https://huggingface.co/user/repo/resolve/abc/b.gguf?download=true", ("user/repo", "abc", None, "b.gguf")),
        ("user/repo/b.gguf", ("user/repo", None, None, "b.gguf")),
        ("user/repo:b.gguf", ("user/repo", None, None, "b.gguf")),
        ("hub.example:8443/user/repo:Q4_0", ("user/repo", None, "Q4_0", None)),
        (" user/repo-GGUF:UD-Q4_K_XL ", ("user/repo-GGUF", None, "UD-Q4_K_XL", None)),
    ],
)
def test_a_model_of_the_hub_has_many_spellings(text, expected):
    found = parse_reference(text, hosts=("hub.example:8443",))
    assert (found.repo, found.revision, found.quantization, found.file) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "repo", "user/", "/repo", "../../etc/passwd", "user/..", "user/repo/../x.gguf", "user/repo/a.bin",
        "user/repo:Q4 K", "user/repo:Q4/x.gguf", "file:///etc/passwd", "ftp://hf.co/user/repo", "user/repo:../x.gguf",
        "us\ner/repo", "user/repo/a\\b.gguf", "user/repo/a\x00.gguf", "user/repo/blob/../x.gguf", "u/" + "r" * 700,
        "user/repo/blob/ma in/x.gguf", "ünser/repo",
    ],
)  # fmt: skip
def test_what_names_no_model_is_refused(text):
    with pytest.raises(BadRequest):
        parse_reference(text)


@given(st.text(max_size=80) | st.from_regex(r"(https?://)?[a-z.:/@%]{0,40}", fullmatch=True))
def test_a_reference_is_read_or_refused_and_never_leads_elsewhere(text):
    try:
        found = parse_reference(text)
    except GatewayError:
        return
    assert found.repo.count("/") == 1
    assert ".." not in found.repo
    assert ".." not in (found.file or "").split("/")


def test_without_a_quantisation_the_usual_one_is_taken():
    assert names(choose("u/r", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-F16.gguf")) == ["m-Q4_K_M.gguf"]
    assert names(choose("u/r", "m-Q8_0.gguf", "m-F16.gguf", "README.md")) == ["m-Q8_0.gguf"]
    assert names(choose("u/r", "m.gguf")) == ["m.gguf"]
    assert names(choose("u/r", "gpt-oss-20b-mxfp4.gguf", "gpt-oss-20b-F16.gguf")) == ["gpt-oss-20b-mxfp4.gguf"]


def test_a_quantisation_is_found_in_any_case_and_as_a_whole_word():
    files = ("m-Q4_K_M.gguf", "m-IQ4_XS.gguf", "m.q4_k_s.gguf", "m-UD-Q4_K_XL.gguf")
    assert names(choose("u/r:q4_k_s", *files)) == ["m.q4_k_s.gguf"]
    assert names(choose("u/r:UD-Q4_K_XL", *files)) == ["m-UD-Q4_K_XL.gguf"]
    with pytest.raises(NotFound, match="IQ4_XS"):
        choose("u/r:Q4_K", *files)


def test_all_parts_of_a_split_model_come_in_their_order():
    parts = [f"Q8_0/big-Q8_0-0000{number}-of-00003.gguf" for number in (3, 1, 2)]
    choice = choose("u/r:Q8_0", *parts, "big-Q4_0.gguf")
    assert names(choice) == sorted(parts)
    assert choice.files[0].local == "big-Q8_0-00001-of-00003.gguf"
    assert choice.model_id == "big-Q8_0"
    assert choice.total == 300
    assert names(choose(f"u/r/{parts[1]}", *parts)) == sorted(parts)


def test_a_split_model_with_a_part_missing_is_none():
    with pytest.raises(NotFound):
        choose("u/r", "big-00001-of-00003.gguf", "big-00003-of-00003.gguf")
    with pytest.raises(NotFound):
        choose("u/r", "big-00001-of-00002.gguf", "big-00003-of-00002.gguf")


def test_a_model_brings_its_projector_under_a_name_of_its_own():
    choice = choose("u/r", "gemma-4b-it-Q4_K_M.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf")
    assert names(choice) == ["gemma-4b-it-Q4_K_M.gguf", "mmproj-F16.gguf"]
    assert choice.files[1].local == "mmproj-gemma-4b-it-F16.gguf"
    assert choice.files[1].kind == "mmproj"
    assert choice.model_id == "gemma-4b-it-Q4_K_M"


def test_of_several_projectors_the_one_of_the_same_model_is_taken():
    files = ("gemma-4b-Q4_0.gguf", "gemma-12b-Q4_0.gguf", "mmproj-gemma-12b-f16.gguf", "mmproj-gemma-4b-f16.gguf")
    choice = choose("u/r/gemma-12b-Q4_0.gguf", *files)
    assert [file.local for file in choice.files] == ["gemma-12b-Q4_0.gguf", "mmproj-gemma-12b-f16.gguf"]
    assert names(choose("u/r/mmproj-gemma-4b-f16.gguf", *files)) == ["mmproj-gemma-4b-f16.gguf"]


def test_what_is_no_model_is_never_taken():
    with pytest.raises(NotFound, match="no GGUF"):
        choose("u/r", "model.safetensors", "imatrix.gguf", "mmproj-F16.gguf")
    with pytest.raises(NotFound):
        choose("u/r/other.gguf", "m.gguf")


@pytest.mark.parametrize("name", ["a b.gguf", "-x.gguf", ".x.gguf", "x" * 130 + ".gguf", "ä.gguf", "x.GGUF"])
def test_a_name_that_could_not_stand_in_the_folder_is_refused(name):
    with pytest.raises(BadRequest, match="name"):
        choose(f"u/r/{name}", name)


@given(st.lists(st.text("Qq4_K-M.0/gufmprojabc1of2", max_size=30).map(lambda name: name + ".gguf"), max_size=8))
def test_only_plain_names_land_in_the_folder(files):
    try:
        choice = choose("u/r", *dict.fromkeys(files))
    except GatewayError:
        return
    for file in choice.files:
        assert "/" not in file.local
        assert not file.local.startswith((".", "-"))


def test_later_parts_are_known_by_their_name():
    assert is_later_part("m-00002-of-00003.gguf")
    assert not is_later_part("m-00001-of-00003.gguf")
    assert not is_later_part("m.gguf")
