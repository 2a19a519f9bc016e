"""Settings of work that is done later or by itself: jobs, reading pages, switching models."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec import field as setting

from stellwerk.config.value_types import Count, FilePath, Host, ModelName, Name, Port, Seconds

Resolution: TypeAlias = Literal["tiny", "small", "base", "large", "gundam"]


class Jobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_waiting: Annotated[Count, Meta(description="Jobs that may wait for one model; further ones are refused.")] = (
        10_000
    )
    max_waiting_per_client: Annotated[
        Count, Meta(description="Jobs of one client that may wait, over all models; 0 is unlimited.")
    ] = 2_500
    workers: Annotated[int, Meta(description="Jobs that run at the same time, over all models.", ge=1, le=10_000)] = 64
    attempts: Annotated[
        int, Meta(description="Times that a job is begun before it is given up; a crash counts as one.", ge=1, le=100)
    ] = 3
    attempt_seconds: Annotated[Seconds, Meta(description="Seconds for one attempt.")] = 600
    deadline_seconds: Annotated[
        float, Meta(description="Seconds after which a job that has not begun is given up.", gt=0, le=31_536_000)
    ] = 86_400
    result_hours: Annotated[float, Meta(description="Hours for which a result can be fetched.", gt=0, le=8760)] = 24
    result_bytes: Annotated[int, Meta(description="Largest result that is kept, in bytes.", ge=1024, le=1 << 30)] = (
        8_388_608
    )


class AIGatewayModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[ModelName | None, Meta(description="The model that the short name stands for.")] = None
    port: Annotated[Port | None, Meta(description="Where a server of its own answers, shown to admins.")] = None
    enabled: Annotated[bool, Meta(description="Whether there is such a short name at all.")] = True


class AIGateway(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Annotated[
        Host, Meta(description="Address to listen on; other machines can be let in under the rules of listen.host.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(description="TCP port; 0 takes any free one.", ge=0, le=65535)] = 8080
    config_file: Annotated[
        FilePath | None,
        Meta(description="AI Gateway's own config; null is config/config.yaml where the gateway was started, if any."),
    ] = None
    demo_login: Annotated[
        bool,
        Meta(description="Let programs on this machine log in as admin with the password admin, as the document does."),
    ] = False
    max_waiting: Annotated[
        Count | None,
        Meta(description="Requests here that may wait for one model; null is jobs.max_waiting."),
    ] = None
    requests_per_minute: Annotated[
        Count, Meta(description="Requests that a client may queue in a minute; 0 is unlimited.")
    ] = 60
    burst: Annotated[
        int, Meta(description="Of these, requests at once before a steady pace counts.", ge=1, le=1_000_000)
    ] = 10
    access_minutes: Annotated[
        float, Meta(description="Minutes for which an access token of this listener is good.", gt=0, le=60)
    ] = 60
    refresh_days: Annotated[float, Meta(description="Days for which its refresh token is good.", gt=0, le=365)] = 7
    models: Annotated[
        Mapping[Name, AIGatewayModel],
        Meta(
            description="What its short names stand for. Without an entry gemma is google/gemma-3-4b-it, and deepseek "
            "is deepseek-ai/DeepSeek-OCR.",
            max_length=100,
            examples=["gemma"],
        ),
    ] = setting(default_factory=dict)


class Ocr(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: Annotated[
        bool,
        Meta(description="Offer rapidocr as a model. Without it documents are still opened for models that see."),
    ] = True
    engine: Annotated[
        ModelName, Meta(description="Who reads pages: rapidocr, which runs here, or a model that sees.")
    ] = "rapidocr"
    resolution: Annotated[Resolution, Meta(description="How finely pages are looked at when nobody says.")] = "large"
    dpi: Annotated[int, Meta(description="Resolution in which pages of a PDF are drawn.", ge=50, le=600)] = 150
    max_pages: Annotated[int, Meta(description="Pages of one document.", ge=1, le=10_000)] = 200
    max_pixels: Annotated[int, Meta(description="Pixels of one page.", ge=10_000, le=1_000_000_000)] = 60_000_000
    max_bytes: Annotated[int, Meta(description="Bytes of one document.", ge=1024, le=1 << 30)] = 52_428_800
    workers: Annotated[int, Meta(description="Processes that read pages side by side.", ge=1, le=64)] = 1
    idle_seconds: Annotated[Seconds, Meta(description="Seconds after which an idle reader gives its memory back.")] = (
        600
    )


class AutoSwitch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: Annotated[
        bool, Meta(description="Load the local model that is asked for most in place of another by itself.")
    ] = False
    pattern_window_days: Annotated[float, Meta(description="Days of requests that are looked at.", gt=0, le=365)] = 7
    min_requests_for_switch: Annotated[
        int, Meta(description="Requests for a model before it is considered.", ge=1, le=1_000_000)
    ] = 10
    share: Annotated[
        float, Meta(description="Part of all requests that a model must have: 0.6 is 60 percent.", gt=0, le=1)
    ] = 0.6
    cooldown_minutes: Annotated[float, Meta(description="Minutes between two switches.", gt=0, le=10_080)] = 5
