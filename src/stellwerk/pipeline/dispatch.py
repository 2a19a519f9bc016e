"""Tries the targets of a plan in order."""

from collections.abc import Mapping
from typing import Protocol

from stellwerk.core.call import Call
from stellwerk.core.errors import BadRequest, GatewayError, Unavailable
from stellwerk.core.plan import Plan, Target
from stellwerk.core.ports import Provider, Reply
from stellwerk.pipeline.meter import CallMeter


class DispatchWatch(Protocol):
    def fell_back(self) -> None:
        """A target failed and the next one is tried."""


class Dispatch:
    """Sends a call to the first target that answers. After the first byte to the client there is no second target."""

    def __init__(self, providers: Mapping[str, Provider], watch: DispatchWatch, attempts: int) -> None:
        self.providers = providers
        self._watch = watch
        self.attempts = attempts

    async def run(self, call: Call, plan: Plan, reply: Reply, meter: CallMeter) -> None:
        """Raises the last target's GatewayError when none could answer."""
        targets = plan.targets[: self.attempts]
        for target in targets[:-1]:
            try:
                return await self._try(call, target, reply, meter)
            except GatewayError as error:
                if reply.started or not error.may_fall_back:
                    raise
                self._watch.fell_back()
        return await self._try(call, targets[-1], reply, meter)

    async def _try(self, call: Call, target: Target, reply: Reply, meter: CallMeter) -> None:
        meter.attempt(target)
        provider = self.providers.get(target.provider)
        if provider is None:
            raise Unavailable("This model's provider is not available at the moment.", may_fall_back=True)
        wire = provider.wire(call.operation)
        if wire is None:
            raise BadRequest(
                f"The model '{call.model}' cannot be used for this.", param="model", code="unsupported_operation"
            )
        answer = await provider.send(call, target, wire, reply.fields(wire))
        try:
            if wire is call.wire:
                await reply.relay(answer, target, meter)
            else:
                await reply.render(provider.events(answer, wire, stream=call.stream), answer, meter)
        finally:
            # Complete answers do not mind; an unfinished one must not go on when nobody reads it any more.
            answer.abort()
