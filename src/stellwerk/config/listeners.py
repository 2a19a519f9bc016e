"""Settings of the listeners for the clients of other systems."""

from typing import Annotated

from msgspec import Meta, Struct

from stellwerk.config.value_types import FilePath, Host, Network, Url
from stellwerk.core.secrets import Secret


class SigoRest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    http_port: Annotated[
        int, Meta(description="Port for programs on this machine, without TLS; 0 takes any free one.", ge=0, le=65535)
    ] = 9080
    lan_trust: Annotated[
        bool,
        Meta(
            description="Also let every machine of lan_networks in, over TLS and without a key. Its use counts as that "
            "of the user `local`."
        ),
    ] = False
    https_port: Annotated[
        int, Meta(description="Port for machines of lan_networks; 0 takes any free one.", ge=0, le=65535)
    ] = 9443
    lan_networks: Annotated[
        tuple[Network, ...], Meta(description="Networks that lan_trust lets in.", min_length=1, max_length=64)
    ] = ("192.168.0.0/16", "10.0.0.0/8")
    lan_may_change_memory: Annotated[
        bool, Meta(description="Machines of lan_networks may replace the memory block, which every call then carries.")
    ] = False
    certificate: Annotated[
        FilePath | None,
        Meta(description="Certificate chain in PEM; null makes one, with an authority of its own, in the data folder."),
    ] = None
    certificate_key: Annotated[FilePath | None, Meta(description="Its private key in PEM.")] = None


class GoOllama(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Annotated[
        Host, Meta(description="Address to listen on; other machines can be let in under the rules of listen.host.")
    ] = "127.0.0.1"
    ports: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=65535)], ...],
        Meta(description="The same is answered on each; 0 takes any free one.", min_length=1, max_length=8),
    ] = (8080, 8081)


class CloudProxy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Annotated[
        Host, Meta(description="Address to listen on; other machines can be let in under the rules of listen.host.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(description="TCP port; 0 takes any free one.", ge=0, le=65535)] = 11434
    base_url: Annotated[Url, Meta(description="Where the cloud is.")] = "https://ollama.com"
    keys: Annotated[
        tuple[Secret, ...],
        Meta(
            description="Keys for the cloud. Without any, those of keys_file count, then OLLAMA_API_KEYS (with commas "
            "between them), then OLLAMA_API_KEY.",
            max_length=64,
        ),
    ] = ()
    keys_file: Annotated[
        FilePath | None,
        Meta(
            description="A YAML file with a list `keys`; null is CONFIG_PATH, or config/config.yaml where the gateway "
            "was started."
        ),
    ] = None
    token: Annotated[
        Secret | None,
        Meta(description="What clients have to show; null is PROXY_AUTH_TOKEN.", examples=["${MY_TOKEN}"]),
    ] = None
    allow_unauthenticated: Annotated[
        bool,
        Meta(
            description="Programs on this machine need to show nothing; also switched on by "
            "ALLOW_UNAUTHENTICATED_ACCESS=true."
        ),
    ] = False
