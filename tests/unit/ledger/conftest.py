import pytest

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.principal import Principal, Role, Tier
from stellwerk.ledger.accounts import balance, top_up
from stellwerk.ledger.charges import Charges, ChargeSettings
from stellwerk.ledger.check import check
from stellwerk.storage.writer import Writer, WriterSettings


@pytest.fixture
def writer(database):
    writer = Writer(database.writing, WriterSettings(gather_seconds=0.005))
    yield writer
    writer.close(within=2)


@pytest.fixture
def pay_in(database):
    """Tops up a user's balance."""

    def pay_in(amount, user_id=7, **more):
        details = {"note": "by bank transfer", "actor": "admin", "now": 1_000.0, "currency": "EUR", **more}
        return database.write(lambda connection: top_up(connection, user_id, amount, **details))

    return pay_in


@pytest.fixture
def balance_of(database):
    """What a user has available and on hold, after the ledger has been proved to add up."""

    def balance_of(user_id=7):
        assert database.read(check).problems == []
        found = database.read(lambda connection: balance(connection, user_id))
        return found.available, found.held

    return balance_of


def make_call(deadline=2_000_000.0, call_id="req_1", user_id=7, key_id="abcdefghij", tier=Tier.PAYG, **of_principal):
    principal = Principal(key_id=key_id, name="a key", role=Role.USER, user_id=user_id, tier=tier, **of_principal)
    return Call(
        id=call_id,
        operation=Operation.CHAT,
        wire=Wire.OPENAI_CHAT,
        model="m",
        fields={},
        principal=principal,
        received=0.0,
        deadline=deadline,
    )


@pytest.fixture
def call():
    """Makes a call of a paying user."""
    return make_call


@pytest.fixture
async def charging(writer, clock):
    """Makes the charges of one process."""
    made = []

    def charging(submit=writer.submit, **settings):
        made.append(Charges(writer.run, submit, clock, ChargeSettings(retry_seconds=0.001, **settings)))
        return made[-1]

    yield charging
    for charges in made:
        await charges.stop()


@pytest.fixture
def charges(charging):
    return charging()
