from stellwerk.engines.ocr.turns import Turns


async def test_documents_take_turns_and_pages_of_one_keep_their_order():
    turns = Turns()
    waiters = {name: turns.join(name[0]) for name in ("a1", "a2", "a3", "b1", "c1", "c2")}
    order = []
    while (waiter := turns.next()) is not None:
        order.append(next(name for name, other in waiters.items() if other is waiter))
    assert order == ["a1", "b1", "c1", "a2", "c2", "a3"]


async def test_who_has_left_gets_no_turn():
    turns = Turns()
    left, gone, stays = turns.join("a"), turns.join("b"), turns.join("b")
    turns.leave("a", left)
    gone.cancel()
    assert len(turns) == 1
    assert turns.next() is stays
    assert turns.next() is None
    turns.leave("b", stays)
