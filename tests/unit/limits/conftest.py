import pytest

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.principal import Principal, Role


@pytest.fixture
def call():
    def call(key_id="a", **own):
        principal = Principal(key_id=key_id, name=key_id, role=Role.USER, **own)
        return Call(
            id="req_1",
            operation=Operation.CHAT,
            wire=Wire.OPENAI_CHAT,
            model="m",
            fields={},
            principal=principal,
            received=0.0,
            deadline=1e9,
        )

    return call
