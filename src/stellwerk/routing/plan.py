"""Decides where a call may go: the name it asked for, the rights of its key, what the models can do."""

import msgspec

from stellwerk.core.call import Call, Operation
from stellwerk.core.errors import BadRequest, Forbidden, NotFound
from stellwerk.core.plan import Model, Plan
from stellwerk.core.principal import Principal
from stellwerk.routing.catalogue import Catalogue

_SHOWN_CHARACTERS = 128
_REQUESTS = {
    Operation.CHAT: "chat completions",
    Operation.COMPLETION: "completions",
    Operation.EMBEDDING: "embeddings",
    Operation.RERANK: "reranking",
    Operation.OCR: "reading pages",
}


def plan(call: Call, catalogue: Catalogue) -> Plan:
    """The targets for a call.

    Raises NotFound (`model_not_found`), Forbidden (`model_access_denied`) and BadRequest (`unsupported_operation`)
    when no model of that name can do what is asked.
    """
    found = catalogue.plan(call.model)
    if found is None:
        raise _not_found(call, catalogue)
    if not may_use(call.principal, found, catalogue, asked=call.model):
        raise Forbidden(
            f"This API key may not use the model '{_shown(call.model)}'.",
            code="model_access_denied",
            param="model",
        )
    able = tuple(target for target in found.targets if catalogue.supports(target, call.operation))
    if not able:
        raise BadRequest(
            f"The model '{_shown(call.model)}' does not support {_REQUESTS[call.operation]}.",
            code="unsupported_operation",
            param="model",
        )
    return found if len(able) == len(found.targets) else msgspec.structs.replace(found, targets=able)


def may_use(principal: Principal, found: Plan, catalogue: Catalogue, *, asked: str) -> bool:
    """Whether the key may use what `asked` leads to.

    Its list names models by id or shortcode, aliases, or all models of a provider as `provider/*`. An alias that is
    not in the list is allowed when each of its targets is: it gives nothing that the key could not reach by itself.
    """
    if principal.may_use(found.name) or principal.may_use(asked):
        return True
    model = catalogue.get(found.name)
    if model is not None and model.shortcode is not None and principal.may_use(model.shortcode):
        return True
    allowed = principal.models or frozenset()
    return all(
        f"{target.provider}/*" in allowed or f"{target.provider}/{target.model}" in allowed for target in found.targets
    )


def may_see(principal: Principal, model: Model, catalogue: Catalogue) -> bool:
    """Whether a listed model is shown to the key: it may use it under its id or under its bare name."""
    if principal.models is None:
        return True
    found = catalogue.plan(model.id)
    if found is None:
        return False
    bare = model.name if catalogue.plan(model.name) is found else model.id
    return may_use(principal, found, catalogue, asked=bare)


def _not_found(call: Call, catalogue: Catalogue) -> NotFound:
    # A name that the key may not use is not given away by a suggestion.
    meant = [
        name
        for name in catalogue.suggest(call.model)
        if (known := catalogue.plan(name)) is not None and may_use(call.principal, known, catalogue, asked=name)
    ]
    question = f" Did you mean {' or '.join(repr(name) for name in meant)}?" if meant else ""
    return NotFound(
        f"The model '{_shown(call.model)}' does not exist.{question} GET /v1/models lists the models there are.",
        code="model_not_found",
        param="model",
    )


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"
