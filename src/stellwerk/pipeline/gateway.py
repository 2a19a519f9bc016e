"""The line: one call from an API to an upstream and its answer back. Read this first."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import ClientLeft, GatewayError
from stellwerk.core.plan import Plan
from stellwerk.core.ports import Reply
from stellwerk.http.exchange import Headers
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.meter import CallMeter
from stellwerk.pipeline.settle import Settle


class Permit(Protocol):
    """The right to run one call; `headers` tell the client what is left of its limits."""

    headers: Headers

    def release(self) -> None: ...


class GatewayReply(Reply, Protocol):
    def admit(self, headers: Headers) -> None:
        """The call may run; `headers` go out with the answer."""


class Gateway:
    """Carries a call through plan, admission, dispatch and settlement."""

    def __init__(
        self,
        *,
        plan: Callable[[Call], Plan],
        admit: Callable[[Call], Permit],
        dispatch: Dispatch,
        settle: Settle,
        clock: Clock,
    ) -> None:
        self._plan = plan
        self._admit = admit
        self._dispatch = dispatch
        self._settle = settle
        self._clock = clock
        self.in_flight = 0

    async def run(self, call: Call, reply: GatewayReply) -> None:
        """Answers `call` through `reply`.

        Raises GatewayError when the client has seen nothing yet. A cancelled run closes the upstream's connection.
        Planning comes first because it is pure: a call that nobody could answer uses nothing up.
        """
        plan = self._plan(call)
        permit = self._admit(call)
        meter = CallMeter(call, self._clock)
        self.in_flight += 1
        try:
            reply.admit(permit.headers)
            await self._dispatch.run(call, plan, reply, meter)
        except GatewayError as error:
            meter.fail(200 if reply.started else error.status, error.code)
            if not reply.started:
                raise
        except asyncio.CancelledError:
            meter.fail(ClientLeft.status, ClientLeft.code)
            raise
        except BaseException:
            meter.fail(GatewayError.status, GatewayError.code)
            raise
        finally:
            # Nothing here may wait: a second cancellation would lose the record.
            self.in_flight -= 1
            permit.release()
            self._settle(meter)
