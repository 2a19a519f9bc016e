"""The whole way from a call to its targets: its name, who of several goes first, what stands in when none can do it."""

from collections.abc import Callable, Collection, Iterable

import msgspec

from stellwerk.core.call import Call, Operation
from stellwerk.core.errors import BadRequest, GatewayError, NotFound
from stellwerk.core.plan import Model, Plan, Target
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.choice import Chooser
from stellwerk.routing.needs import LeastTokens, Need, find_needs, lacks
from stellwerk.routing.plan import may_use, plan

_WORDS = {
    Need.IMAGE: "takes no images",
    Need.AUDIO: "takes no sound",
    Need.TOOLS: "calls no tools",
    Need.CONTEXT: "has a context that is too short for this",
}
_COMPARED = frozenset({Operation.EMBEDDING, Operation.RERANK})
_MOST_TARGETS = 32


class PlanRules(msgspec.Struct, frozen=True, kw_only=True):
    capability_fallback: bool = False
    """Another model may answer what the one that was named cannot."""
    request_fallbacks: bool = True
    """Requests may name further models."""


class Planner:
    """Plans calls against the catalogue of the moment; pure but for the state of its chooser."""

    def __init__(
        self,
        catalogue: Catalogue,
        chooser: Chooser,
        rules: PlanRules,
        *,
        least_tokens: LeastTokens,
        loaded: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`least_tokens` is asked only where the answer may matter; `loaded` names local models that are in memory."""
        self._catalogue = catalogue
        self._chooser = chooser
        self.rules = rules
        """May be replaced."""
        self._least_tokens = least_tokens
        self._loaded = loaded

    def plan(self, call: Call) -> Plan:
        """Raises what `routing.plan.plan` does, and BadRequest naming `fallbacks` when one of those leads nowhere."""
        found = self._fit(call, self._chooser.arrange(call, plan(call, self._catalogue)))
        return self._with_fallbacks(call, found) if call.fallbacks else found

    def _fit(self, call: Call, found: Plan) -> Plan:
        """Without the targets that are known to be unable; with another model when none is left and that is allowed.

        A plan that nobody is able for is left as it is where nothing else may answer: the target's own refusal names
        the field that is wrong.
        """
        # Vectors and scores of two models cannot be compared: nothing may stand in for the one that was named.
        may_stand_in = self.rules.capability_fallback and call.operation not in _COMPARED
        if len(found.targets) == 1 and not may_stand_in:
            return found
        catalogue = self._catalogue
        models = [catalogue.model_of(target) for target in found.targets]
        if not any(model is not None and model.certain for model in models):
            return found
        needs, tokens = find_needs(call), self._tokens(call, models)
        missing = [None if model is None else lacks(model, needs, tokens) for model in models]
        able = tuple(target for target, lack in zip(found.targets, missing, strict=True) if lack is None)
        if able:
            return found if len(able) == len(models) else msgspec.structs.replace(found, targets=able)
        if not may_stand_in:
            return found
        reason = next(lack for lack in missing if lack is not None)
        other = self._stand_in(call, needs, tokens, found.targets[0].provider)
        if other is None:
            raise BadRequest(
                f"The model '{found.name}' {_WORDS[reason]}, and no other model that you may use does.",
                param="model",
                code="unsupported_operation",
            )
        return Plan(
            name=other.name,
            targets=other.targets,
            stands_for=other.stands_for,
            note=f"{other.name}; reason={reason}",
        )

    def _tokens(self, call: Call, models: Iterable[Model | None]) -> int:
        """0 where no context is small enough for the body to be too much."""
        shortest = min(
            (model.context_length or 0 for model in models if model is not None and model.certain), default=0
        )
        size = sum(len(bytes(value)) for value in call.fields.values())
        return self._least_tokens(call) if shortest and size > shortest else 0

    def _stand_in(self, call: Call, needs: frozenset[Need], tokens: int, provider: str) -> Plan | None:
        """Only models of which it is known that they can: those of the same provider first, then those that are in
        memory, then the cheapest."""
        catalogue = self._catalogue
        loaded = frozenset(self._loaded())
        candidates = []
        for model in catalogue.models():
            if not model.certain or call.operation not in model.operations or lacks(model, needs, tokens) is not None:
                continue
            found = catalogue.plan(model.id)
            if found is None or not may_use(call.principal, found, catalogue, asked=model.id):
                continue
            cost = 0 if model.price is None else model.price.input + model.price.output
            candidates.append(((model.provider != provider, model.id not in loaded, cost, model.id), found))
        return min(candidates, key=lambda each: each[0])[1] if candidates else None

    def _with_fallbacks(self, call: Call, found: Plan) -> Plan:
        if not self.rules.request_fallbacks:
            raise BadRequest("Requests may not name fallbacks here.", param="fallbacks", code="unsupported_parameter")
        targets: dict[Target, None] = dict.fromkeys(found.targets)
        for name in call.fallbacks:
            other = msgspec.structs.replace(call, model=name, fallbacks=())
            try:
                further = self._fit(other, self._chooser.arrange(other, plan(other, self._catalogue)))
            except (NotFound, BadRequest) as error:
                raise _of_fallback(error) from None
            targets.update(dict.fromkeys(further.targets))
        return msgspec.structs.replace(found, targets=tuple(targets)[:_MOST_TARGETS])


def _of_fallback(error: GatewayError) -> BadRequest:
    return BadRequest(error.message, param="fallbacks", code=error.code)
