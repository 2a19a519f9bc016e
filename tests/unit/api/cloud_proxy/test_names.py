import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.cloud_proxy.names import cloud_name


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("gpt-oss:120b-cloud", "gpt-oss:120b"),
        ("gpt-oss:120b:cloud", "gpt-oss:120b"),
        ("glm-4.6:cloud", "glm-4.6"),
        ("glm-4.6:CLOUD", "glm-4.6"),
        ("gpt-oss:120b-Cloud", "gpt-oss:120b"),
        ("alice/model:7b-cloud", "alice/model:7b"),
        ("gpt-oss:120b", "gpt-oss:120b"),
        ("my-cloud", "my-cloud"),
        ("my-cloud:7b", "my-cloud:7b"),
        ("model:cloudy", "model:cloudy"),
        ("", ""),
    ],
)
def test_the_mark_of_a_local_ollama_is_cut_off(asked, sent):
    assert cloud_name(asked) == sent


@given(st.text(st.sampled_from("abC:-/cloud"), max_size=20))
def test_a_name_without_a_mark_is_left_as_it_is_and_nothing_is_added(name):
    sent = cloud_name(name)
    assert name.startswith(sent)
    assert sent == name or name[len(sent) :].lower() in (":cloud", "-cloud")
