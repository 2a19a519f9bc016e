import pytest

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import GatewayError
from stellwerk.core.outcome import Estimate
from stellwerk.core.principal import Allowance, Principal, Role, Tier


@pytest.fixture
def call():
    def call(key_id="a", *, user_id=1, tier=Tier.PAYG, model="m", user=None, **own):
        principal = Principal(
            key_id=key_id,
            name=key_id,
            role=Role.USER,
            user_id=user_id,
            tier=tier,
            allowance=Allowance(**own),
            user_allowance=Allowance(**(user or {})),
        )
        return Call(
            id="req_1",
            operation=Operation.CHAT,
            wire=Wire.OPENAI_CHAT,
            model=model,
            fields={},
            principal=principal,
            received=0.0,
            deadline=1e9,
        )

    return call


@pytest.fixture
def estimate():
    def estimate(tokens=10, output=0):
        return Estimate(input_tokens=tokens, least_input_tokens=0, output_tokens=output)

    return estimate


@pytest.fixture
def refusal(estimate):
    def refusal(limits, call, tokens=10, model=None):
        """The error with which a call is refused."""
        with pytest.raises(GatewayError) as raised:
            limits.admit(call, estimate(tokens), model)
        return raised.value

    return refusal
