"""What single values of the config may be: their bounds and their form."""

from typing import Annotated

from msgspec import Meta

# `form` is the key of a wording in problems.WORDS for a text that does not match its pattern.
Host = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9._-]{1,253}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,37})$",
        extra={"form": "host"},
    ),
]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$", extra={"form": "name"})]
ModelName = Annotated[str, Meta(pattern=r"^[!-~]{1,200}$", extra={"form": "model"})]
TargetName = Annotated[str, Meta(pattern=r"^[!-~]{1,240}$", extra={"form": "target"})]
HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$", extra={"form": "header"})]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", extra={"form": "variable"})]
FilePath = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]{1,4096}$", extra={"form": "path"})]
Network = Annotated[str, Meta(pattern=r"^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$", extra={"form": "network"})]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$", extra={"form": "currency"})]
Url = Annotated[str, Meta(max_length=2048)]
WebOrigin = Annotated[str, Meta(max_length=300)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Amount = Annotated[float, Meta(ge=0, le=1_000_000)]
