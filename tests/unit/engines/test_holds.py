from pathlib import Path

import msgspec

from stellwerk.engines.gguf import FileStamp, GgufFacts
from stellwerk.engines.holds import Holds
from stellwerk.engines.model_files import ModelFile

FACTS = GgufFacts(
    architecture="llama", name="", kind="model", context_length=None, parameter_count=None, quantization=None,
    embeds=False, ranks=False, has_chat_template=False, knows_tools=False,
)  # fmt: skip
FILE = ModelFile(id="a", path=Path("/a.gguf"), facts=FACTS, stamp=FileStamp(size=1, modified=1, inode=1), size=1)


def test_a_failed_load_is_held_longer_each_time_up_to_a_minute():
    holds, now, waits = Holds(600.0), 0.0, []
    for _ in range(9):
        holds.note(FILE, "broken", now, had_served=False)
        hold = holds.on(FILE, now)
        assert hold is not None
        waits.append(hold.until - now)
        now = hold.until
        assert holds.on(FILE, now) is None
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_crash_loop_is_held_for_its_whole_window():
    holds = Holds(600.0)
    holds.note(FILE, "crashed", 0.0, had_served=True)
    assert holds.on(FILE, 599.0) is not None


def test_a_changed_file_and_a_lifted_hold_are_free():
    holds = Holds(600.0)
    holds.note(FILE, "broken", 0.0, had_served=False)
    assert holds.on(msgspec.structs.replace(FILE, stamp=FileStamp(size=2, modified=1, inode=1)), 0.0) is None
    holds.lift(FILE)
    assert holds.on(FILE, 0.0) is None


def test_holds_on_models_that_are_gone_are_forgotten():
    holds = Holds(600.0)
    holds.note(FILE, "broken", 0.0, had_served=False)
    holds.forget(frozenset())
    assert holds.on(FILE, 0.0) is None
