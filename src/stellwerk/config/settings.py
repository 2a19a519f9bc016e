"""Every setting: its type, bounds, default and description. Example and JSON Schema are made from this file."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec import field as setting

from stellwerk.config.engines import Engines, Hub
from stellwerk.config.jobs import AIGateway, AutoSwitch, Jobs, Ocr
from stellwerk.config.listeners import CloudProxy, GoOllama, SigoRest
from stellwerk.config.models import Gate, PublicModel, Routing
from stellwerk.config.value_types import (
    Amount,
    Bytes,
    Count,
    Currency,
    HeaderName,
    Host,
    ModelName,
    Name,
    Network,
    Seconds,
    TargetName,
    Tokens,
    Url,
    WebOrigin,
)
from stellwerk.core.secrets import Secret


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Annotated[
        Host,
        Meta(
            description="Address to listen on. Anything but this machine itself (127.0.0.1, ::1, localhost) also needs "
            "allowed_hosts or behind_proxy."
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(description="TCP port; 0 takes any free one.", ge=0, le=65535)] = 4000
    allowed_hosts: Annotated[
        tuple[Host, ...],
        Meta(
            description="Names in the Host header that are answered, beside the loopback names and the bound address. "
            "Names only, without port.",
            max_length=64,
            examples=[["gateway.example.org"]],
        ),
    ] = ()
    behind_proxy: Annotated[
        bool,
        Meta(description="A reverse proxy in front checks who comes in and under which host name."),
    ] = False
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Meta(
            description="Addresses or networks of reverse proxies. From them x-forwarded-for is believed, so that "
            "limits, IP rules and the audit log see the client's address and not the proxy's.",
            max_length=64,
            examples=[["127.0.0.1", "10.0.0.0/8"]],
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[WebOrigin, ...],
        Meta(
            description="Origins whose web pages and browser extensions may call the gateway from a browser, each as "
            "scheme://host or scheme://host:port. On listeners that need no key they need none either. A single * is "
            "every page that shows a key.",
            max_length=64,
            examples=[["https://app.example.org", "http://localhost:3000"]],
        ),
    ] = ()


class Guard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    head_seconds: Annotated[Seconds, Meta(description="Seconds for a request's head to arrive.")] = 10
    body_seconds: Annotated[Seconds, Meta(description="Seconds for a request's body to arrive.")] = 60
    idle_seconds: Annotated[Seconds, Meta(description="Seconds a kept connection may wait for its next request.")] = 15
    write_stall_seconds: Annotated[
        Seconds, Meta(description="Seconds after which a client that takes no bytes off its answer is dropped.")
    ] = 30
    head_bytes: Annotated[Bytes, Meta(description="Largest head of a request, in bytes.")] = 32768
    head_fields: Annotated[int, Meta(description="Most header fields of a request.", ge=8, le=1000)] = 64
    target_bytes: Annotated[Bytes, Meta(description="Longest request target (path and query), in bytes.")] = 8192
    body_bytes: Annotated[
        Bytes, Meta(description="Largest body of a request, in bytes; pictures and documents come as text in it.")
    ] = 33554432
    connections: Annotated[
        int, Meta(description="Most connections of clients at the same time.", ge=1, le=1_000_000)
    ] = 4096


class OwnLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests_per_minute: Annotated[Count, Meta(description="Requests in any 60 seconds; 0 is unlimited.")] = 0
    burst: Annotated[
        Count, Meta(description="Of these, requests at once before a steady pace counts; 0 is all of them.")
    ] = 0
    tokens_per_minute: Annotated[Tokens, Meta(description="Tokens in any 60 seconds; 0 is unlimited.")] = 0
    concurrent_requests: Annotated[
        Count, Meta(description="Requests that may run at the same time; 0 is unlimited.")
    ] = 0


class PaygLimits(OwnLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests_per_minute: Annotated[Count, Meta(description="Requests in any 60 seconds; 0 is unlimited.")] = 25


class SubscriptionLimits(OwnLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests_per_minute: Annotated[Count, Meta(description="Requests in any 60 seconds; 0 is unlimited.")] = 100


class Tiers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    payg: Annotated[PaygLimits, Meta(description="Who pays from a balance.")] = setting(default_factory=PaygLimits)
    sub: Annotated[SubscriptionLimits, Meta(description="Who has a subscription.")] = setting(
        default_factory=SubscriptionLimits
    )
    admin: Annotated[OwnLimits, Meta(description="Who pays nothing.")] = setting(default_factory=OwnLimits)


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests_per_minute: Annotated[
        Count,
        Meta(description="Requests of an API key in any 60 seconds; 0 is unlimited. A key's own limit goes first."),
    ] = 0
    burst: Annotated[
        Count,
        Meta(
            description="Of these, requests that a key may send at once before a steady pace counts; 0 is all of them."
        ),
    ] = 0
    tokens_per_minute: Annotated[
        Tokens, Meta(description="Tokens of an API key in any 60 seconds, prompts and answers; 0 is unlimited.")
    ] = 0
    concurrent_requests: Annotated[
        Count, Meta(description="Requests of one API key that may run at the same time; 0 is unlimited.")
    ] = 0
    total_concurrent_requests: Annotated[
        Count, Meta(description="Requests of all keys together that may run at the same time; 0 is unlimited.")
    ] = 0
    tiers: Annotated[
        Tiers, Meta(description="Limits of a user over all of his keys, by tier. A user's own limits go first.")
    ] = setting(default_factory=Tiers)
    models: Annotated[
        Mapping[ModelName, OwnLimits],
        Meta(description="Limits of a user for one model.", max_length=1000, examples=["my-vllm/my-model"]),
    ] = setting(default_factory=dict)


class Money(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    currency: Annotated[
        Currency, Meta(description="Currency of balances, budgets and costs. It stays once there is a balance.")
    ] = "EUR"
    usd_rate: Annotated[
        float,
        Meta(description="What one US dollar is worth in that currency; vendors' prices are in dollars.", gt=0, le=1e6),
    ] = 1
    input_per_1k: Annotated[
        Amount,
        Meta(description="Price of 1000 prompt tokens for users of the tiers payg and sub, where a model has none."),
    ] = 0.0001
    output_per_1k: Annotated[Amount, Meta(description="The same for 1000 tokens of an answer.")] = 0.0002
    assumed_output_tokens: Annotated[
        int,
        Meta(description="Tokens set aside for an answer whose length the client did not limit.", ge=1, le=10_000_000),
    ] = 1024
    wait_seconds: Annotated[
        float,
        Meta(
            description="Seconds that a call waits for money which other calls of the user may give back.",
            ge=0,
            le=3600,
        ),
    ] = 10


class SignUp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: Annotated[
        bool, Meta(description="Let anybody ask for an account; an admin decides about each request.")
    ] = False


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    connect_seconds: Annotated[Seconds, Meta(description="Seconds to connect, TLS included.")] = 5
    first_byte_seconds: Annotated[
        Seconds, Meta(description="Seconds from the sent request to the first byte of the answer.")
    ] = 120
    idle_seconds: Annotated[Seconds, Meta(description="Longest silence in the middle of an answer, in seconds.")] = 60
    total_seconds: Annotated[Seconds, Meta(description="Seconds for a whole call, every attempt included.")] = 1800
    connections: Annotated[int, Meta(description="Most connections to all upstreams together.", ge=1, le=1_000_000)] = (
        1024
    )
    idle_connections: Annotated[
        Count, Meta(description="Unused connections that are kept open for each upstream address.")
    ] = 256
    response_bytes: Annotated[
        Bytes, Meta(description="Largest answer that is collected as a whole, in bytes; streams are not bounded by it.")
    ] = 67108864
    line_bytes: Annotated[Bytes, Meta(description="Longest line of a streamed answer, in bytes.")] = 1048576
    attempts: Annotated[
        int, Meta(description="Attempts for one call, over all of its targets; 1 never tries again.", ge=1, le=16)
    ] = 3
    breaker_failures: Annotated[
        int,
        Meta(
            description="Failures in a row after which a target is left alone for a while; 0 never does.", ge=0, le=1000
        ),
    ] = 5
    breaker_seconds: Annotated[
        Seconds, Meta(description="Seconds for that; then one call tries whether it answers again.")
    ] = 30


class Discovery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    environment: Annotated[
        bool, Meta(description="Offer every vendor whose key is in the environment, such as OPENAI_API_KEY.")
    ] = True
    ollama: Annotated[bool, Meta(description="Offer the models of an Ollama when one answers.")] = True
    ollama_url: Annotated[Url, Meta(description="Where to look for that Ollama.")] = "http://127.0.0.1:11434"
    refresh_seconds: Annotated[Seconds, Meta(description="Seconds between two looks at what providers offer.")] = 60


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    vendor: Annotated[
        Name | None,
        Meta(
            description="Vendor whose address and habits are used; null is the provider's own name.", examples=["vllm"]
        ),
    ] = None
    base_url: Annotated[
        Url | None,
        Meta(
            description="Address up to and including /v1; null is the vendor's. No user, password, query or fragment.",
            examples=["http://10.0.0.7:8000/v1"],
        ),
    ] = None
    api_key: Annotated[
        Secret | None,
        Meta(
            description="Key for the upstream, best as ${NAME} from the environment; null is the vendor's own "
            "variable, an empty text sends none.",
            examples=["${MY_VLLM_KEY}"],
        ),
    ] = None
    api_keys: Annotated[
        tuple[Secret, ...],
        Meta(
            description="Further keys for the same upstream. When one is refused or has reached its limit, the next "
            "one answers the same request.",
            max_length=64,
        ),
    ] = ()
    models: Annotated[
        tuple[ModelName, ...],
        Meta(description="When given, only these models are offered.", max_length=1000, examples=[["my-model"]]),
    ] = ()
    headers: Annotated[
        Mapping[HeaderName, Secret],
        Meta(description="Further headers of every request.", max_length=32, examples=[{"X-Team": "research"}]),
    ] = setting(default_factory=dict)
    first_byte_seconds: Annotated[
        Seconds | None,
        Meta(description="Seconds to the first byte at this provider; null is upstream.first_byte_seconds."),
    ] = None


class Egress(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allowed_origins: Annotated[
        tuple[Url, ...],
        Meta(
            description="Origins that may be called although they are on this machine or in a private network.",
            max_length=100,
            examples=[["http://127.0.0.1:9000"]],
        ),
    ] = ()


class Sessions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    store: Annotated[
        Literal["files", "database"],
        Meta(description="Where chats with a session_id are kept: as files that you can read and remove, or as rows."),
    ] = "files"


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Annotated[
        Literal["auto", "human", "json"],
        Meta(description="auto is human on a terminal and json otherwise."),
    ] = "auto"
    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least level that is written.")] = (
        "info"
    )
    calls: Annotated[bool, Meta(description="Write a line for every call; never its prompt or answer.")] = True


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole config; every key has a default."""

    listen: Annotated[Listen, Meta(description="Where clients connect. Changes need a restart.")] = setting(
        default_factory=Listen
    )
    guard: Annotated[Guard, Meta(description="What a client may send, and how slowly.")] = setting(
        default_factory=Guard
    )
    limits: Annotated[Limits, Meta(description="How much a client may ask for.")] = setting(default_factory=Limits)
    money: Annotated[Money, Meta(description="What calls cost, and who pays.")] = setting(default_factory=Money)
    signup: Annotated[SignUp, Meta(description="Strangers who want to become users.")] = setting(default_factory=SignUp)
    upstream: Annotated[Upstream, Meta(description="How long upstreams may take, and how much they may send.")] = (
        setting(default_factory=Upstream)
    )
    engines: Annotated[Engines, Meta(description="Models that run on this machine.")] = setting(default_factory=Engines)
    hub: Annotated[Hub, Meta(description="Where models come from.")] = setting(default_factory=Hub)
    discovery: Annotated[Discovery, Meta(description="What is found without being configured.")] = setting(
        default_factory=Discovery
    )
    compat: Annotated[
        tuple[Literal["sigorest", "go-ollama-api", "ollama-cloud-proxy", "ai-gateway"], ...],
        Meta(description="Listeners for the clients of other systems, on the ports that they know.", max_length=8),
    ] = ()
    sigorest: Annotated[
        SigoRest, Meta(description="The listener for a person's own tools; opened when compat names it.")
    ] = setting(default_factory=SigoRest)
    go_ollama: Annotated[
        GoOllama, Meta(description="The listener for Go Ollama API's clients; opened when compat names go-ollama-api.")
    ] = setting(default_factory=GoOllama)
    ollama_cloud_proxy: Annotated[
        CloudProxy,
        Meta(description="The listener in front of Ollama's cloud; opened when compat names ollama-cloud-proxy."),
    ] = setting(default_factory=CloudProxy)
    ai_gateway: Annotated[
        AIGateway, Meta(description="The listener for AI Gateway's clients; opened when compat names ai-gateway.")
    ] = setting(default_factory=AIGateway)
    jobs: Annotated[Jobs, Meta(description="Requests that are answered later.")] = setting(default_factory=Jobs)
    ocr: Annotated[Ocr, Meta(description="Reading the text of images and documents.")] = setting(default_factory=Ocr)
    auto_switch: Annotated[
        AutoSwitch, Meta(description="Which local model should be in memory, by what was asked for lately.")
    ] = setting(default_factory=AutoSwitch)
    egress: Annotated[Egress, Meta(description="Addresses that a person may make the gateway call.")] = setting(
        default_factory=Egress
    )
    sessions: Annotated[Sessions, Meta(description="Chats that remember what was said before.")] = setting(
        default_factory=Sessions
    )
    providers: Annotated[
        Mapping[Name, Provider],
        Meta(
            description="Upstreams by name; the name is the part before the slash in provider/model.",
            max_length=100,
            examples=["my-vllm"],
        ),
    ] = setting(default_factory=dict)
    models: Annotated[
        Mapping[ModelName, PublicModel],
        Meta(description="Models under names of your own.", max_length=1000, examples=["fast"]),
    ] = setting(default_factory=dict)
    routing: Annotated[Routing, Meta(description="How a name leads to a model.")] = setting(default_factory=Routing)
    gates: Annotated[
        Mapping[TargetName, Gate],
        Meta(
            description="How many calls a model gets at a time, by its name or provider/model. Models that run on this "
            "machine have a gate anyway, as wide as engines.parallel.",
            max_length=1000,
            examples=["my-vllm/my-model"],
        ),
    ] = setting(default_factory=dict)
    log: Annotated[Log, Meta(description="What is written to the log.")] = setting(default_factory=Log)
    drain_seconds: Annotated[
        float, Meta(description="Seconds that running calls get to finish when the gateway stops.", ge=0, le=3600)
    ] = 30
