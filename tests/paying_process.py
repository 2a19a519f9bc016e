"""A process that pays for calls out of a ledger in a folder, until it is told to stop or is killed.

    python paying_process.py spend <folder> <calls>     waits for a line, then begins all calls at once
    python paying_process.py forks <folder>             for each line forks a process that goes on for ever

Says on its output what has happened: `ready`, `served <number>`, `process <id>`, `held <call>`, `gone`.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import InsufficientCredit
from stellwerk.core.outcome import Estimate
from stellwerk.core.plan import Price
from stellwerk.core.principal import Budget, Principal, Role, Tier, Window
from stellwerk.ledger.charges import Charges
from stellwerk.storage.database import open_database
from stellwerk.storage.writer import Writer

A_TOKEN = [Price(input=1_000_000)]
BUDGET = Budget(amount=10**9, window=Window.MONTH)


def say(text: str) -> None:
    # One system call: what was said is out of the process before it can be killed.
    os.write(1, f"{text}\n".encode())


def make_call(number: object, user_id: int = 7, budget: Budget | None = None) -> Call:
    now = time.monotonic()
    principal = Principal(
        key_id=f"of {user_id}", name="k", role=Role.USER, user_id=user_id, tier=Tier.PAYG, user_budget=budget
    )
    return Call(
        id=f"req_{number}",
        operation=Operation.CHAT,
        wire=Wire.OPENAI_CHAT,
        model="m",
        fields={},
        principal=principal,
        received=now,
        deadline=now + 60,
    )


async def spend(folder: Path, calls: int) -> None:
    """Each call is expected to cost 1300 and costs 1000."""
    database = open_database(folder)
    writer = Writer(database.writing)
    charges = Charges(writer.run, writer.submit, SystemClock())
    say("ready")
    sys.stdin.readline()

    async def served(number: int) -> bool:
        estimate = Estimate(input_tokens=1_300, least_input_tokens=500, output_tokens=0)
        try:
            hold = await charges.hold(make_call(number), A_TOKEN, estimate)
        except InsufficientCredit:
            return False
        await asyncio.sleep(0.01)
        hold.settle(1_000)
        return True

    results = await asyncio.gather(*map(served, range(calls)))
    await charges.stop()
    writer.close()
    database.close()
    say(f"served {sum(results)}")


async def go_on(folder: Path) -> None:
    """Several users make holds and close them in every way, without an end."""
    database = open_database(folder)
    writer = Writer(database.writing)
    charges = Charges(writer.run, writer.submit, SystemClock())
    chance = random.Random()

    async def one_after_the_other(user_id: int) -> None:
        number = 0
        while True:
            number += 1
            call = make_call(f"{os.getpid()}_{user_id}_{number}", user_id, BUDGET)
            estimate = Estimate(input_tokens=chance.randint(1, 20), least_input_tokens=1, output_tokens=0)
            hold = await charges.hold(call, A_TOKEN, estimate)
            say(f"held {call.id}")
            await asyncio.sleep(chance.random() * 0.002)
            if chance.random() < 0.3:
                hold.release()
            else:
                hold.settle(chance.randint(0, 25))

    await asyncio.gather(*(one_after_the_other(user_id) for user_id in (7, 8, 7, 8)))


def fork_for_each_line(folder: Path) -> None:
    say("ready")
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            asyncio.run(go_on(folder))
            os._exit(1)
        say(f"process {child}")
        os.waitpid(child, 0)
        say("gone")


if __name__ == "__main__":
    if sys.argv[1] == "spend":
        asyncio.run(spend(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        fork_for_each_line(Path(sys.argv[2]))
