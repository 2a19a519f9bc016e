"""Names of cloud models: a local Ollama marks them as the cloud's, the cloud itself does not."""

_MARK = "cloud"


def cloud_name(name: str) -> str:
    """`gpt-oss:120b-cloud` and `gpt-oss:120b:cloud` are `gpt-oss:120b`, `glm-4.6:cloud` is `glm-4.6`."""
    head, colon, tag = name.rpartition(":")
    if not colon:
        return name
    if tag.lower() == _MARK:
        return head
    return name[: -len(_MARK) - 1] if tag.lower().endswith(f"-{_MARK}") else name
