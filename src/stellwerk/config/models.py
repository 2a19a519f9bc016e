"""Settings of public model names: who answers for them, who of several, and how many calls at a time."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from stellwerk.config.value_types import Count, Seconds, TargetName


class PublicModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    targets: Annotated[
        tuple[TargetName, ...],
        Meta(
            description="Who answers, in the order of the attempts: provider/model or a model's name.",
            min_length=1,
            max_length=16,
            examples=[["my-vllm/my-model", "demo"]],
        ),
    ]
    choice: Annotated[
        Literal["order", "weighted", "least-busy", "lowest-cost", "lowest-latency"],
        Meta(
            description="Which target goes first: the first one, one by chance and weights, the one with the fewest "
            "running calls, the cheapest, or the one that has been quickest lately. The others follow when it fails."
        ),
    ] = "order"
    weights: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=1_000_000)], ...],
        Meta(description="For weighted: a weight for each target, in their order.", max_length=16),
    ] = ()
    sticky: Annotated[
        bool, Meta(description="Calls of one session stay with the target that answered its last one.")
    ] = True
    description: Annotated[str, Meta(description="Shown in the list of models.", max_length=2000)] = ""


class Routing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    prefixes: Annotated[
        bool, Meta(description="The beginning of a model's name is enough when only one model's name begins so.")
    ] = True
    capability_fallback: Annotated[
        bool,
        Meta(
            description="A call that its model cannot answer (an image for a text model, a prompt that is too long) "
            "goes to another model that can. The answer says so in the header x-stellwerk-fallback."
        ),
    ] = False
    request_fallbacks: Annotated[
        bool, Meta(description="A request may name further models to try in the field `fallbacks`.")
    ] = True


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_concurrent: Annotated[
        Count, Meta(description="Calls of the model that run at the same time; 0 is unlimited.")
    ] = 0
    max_waiting: Annotated[
        Count, Meta(description="Calls that may wait for their turn; further ones are refused with 503.")
    ] = 100
    max_wait_seconds: Annotated[Seconds, Meta(description="Seconds that a call may wait for its turn.")] = 600
