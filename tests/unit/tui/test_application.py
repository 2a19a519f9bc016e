"""The keys of the console and what they ask of the gateway."""

import pytest
from msgspec.structs import replace
from textual import events

from tests.gateway_process import wait_until


def did(gateway, method, path):
    return [asked for asked in gateway.asked if (asked.method, asked.path) == (method, path)]


async def chosen(pilot, name):
    """Moves down until that model, queue, job or crash is chosen."""
    table = pilot.app._table
    for _ in range(20):
        fact = table.chosen
        if fact is not None and name in (getattr(fact, "name", ""), getattr(fact, "id", "")):
            return
        await pilot.press("down")
    raise AssertionError(name)


async def test_s_loads_the_chosen_model(administration, console, shows):
    administration.answers["POST /admin/api/slots/load"] = (202, {"status": "loading"})
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "phi-4-mini")
        await chosen(pilot, "phi-4-mini")
        await pilot.press("s")
        await shows(pilot, "phi-4-mini is being loaded.")
    [load] = did(administration, "POST", "/admin/api/slots/load")
    assert load.body == {"model": "phi-4-mini", "wait": False}
    assert load.headers["x-client-id"] == "tui_console"


async def test_a_model_that_is_loaded_is_not_loaded_again(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        await pilot.press("s")
        await shows(pilot, "gemma-3-4b-it is loaded already.")
    assert administration.paths("POST") == []


@pytest.mark.parametrize(("key", "query"), [("x", {}), ("X", {"graceful": "false"})])
async def test_x_unloads_when_it_was_confirmed(administration, console, shows, key, query):
    administration.answers["POST /admin/api/slots/8000/unload"] = {"status": "unloaded", "slot": 8000}
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        await pilot.press(key)
        await shows(pilot, "Unload gemma-3-4b-it", "y yes")
        await pilot.press("n")
        await pilot.pause()
        assert administration.paths("POST") == []
        await pilot.press(key)
        await shows(pilot, "y yes")
        await pilot.press("y")
        await shows(pilot, "gemma-3-4b-it is unloaded.")
    [unload] = did(administration, "POST", "/admin/api/slots/8000/unload")
    assert unload.query == query


async def test_r_switches_the_resolution(documented, console, shows):
    documented.answers["POST /admin/ocr/resolution"] = {"status": "switched", "resolution": "gundam"}
    async with console("eyJh.e30.c2ln").run_test(size=(80, 24)) as pilot:
        await shows(pilot, "deepseek")
        await chosen(pilot, "deepseek")
        await pilot.press("r")
        await shows(pilot, "gundam")
        await pilot.press("down", "enter")
        await shows(pilot, "OCR mode is gundam.")
    [switch] = did(documented, "POST", "/admin/ocr/resolution")
    assert switch.query == {"resolution": "gundam"}


async def test_models_are_started_and_stopped_by_the_documented_routes(documented, console, shows):
    documented.answers["POST /admin/models/deepseek/start"] = {"status": "started", "model": "deepseek"}
    documented.answers["POST /admin/models/gemma/stop"] = {"status": "stopped", "model": "gemma"}
    async with console("eyJh.e30.c2ln").run_test(size=(80, 24)) as pilot:
        await shows(pilot, "deepseek")
        await pilot.press("x")
        await shows(pilot, "y yes")
        await pilot.press("j")
        await shows(pilot, "gemma is unloaded.")
        await chosen(pilot, "deepseek")
        await pilot.press("s")
        await shows(pilot, "deepseek is being loaded.")
    assert did(documented, "POST", "/admin/models/gemma/stop")[0].query == {"graceful": "true"}
    assert did(documented, "POST", "/admin/models/deepseek/start")[0].query == {"resolution": "large"}


async def test_p_pauses_and_resumes_a_queue(administration, console, shows):
    administration.answers["POST /admin/api/queues/gemma-3-4b-it/pause"] = {}
    administration.answers["POST /admin/api/queues/ocr/resume"] = {}
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        await pilot.press("2", "p")
        await shows(pilot, "gemma-3-4b-it is paused.")
        await chosen(pilot, "ocr")
        await pilot.press("p")
        await shows(pilot, "ocr goes on.")


async def test_p_pauses_a_queue_of_the_documented_routes_too(documented, console, shows):
    documented.answers["POST /admin/queue/gemma/pause"] = {}
    documented.answers["POST /admin/queue/gemma/resume"] = {}
    async with console("eyJhbGciOiJIUzI1NiJ9.e30.c2ln").run_test(size=(80, 24)) as pilot:
        await shows(pilot, "deepseek")
        documented.answers["GET /admin/queue/gemma"] |= {"paused": True}
        await pilot.press("2", "p")
        await shows(pilot, "gemma is paused.", "‖ paused gemma")
        await pilot.press("p")
        await shows(pilot, "gemma goes on.")


async def test_c_cancels_a_request_that_has_not_ended(administration, console, shows):
    waiting, ended = "550e8400-e29b-41d4-a716-446655440000", "750e8400-e29b-41d4-a716-446655440002"
    administration.answers[f"DELETE /api/requests/{waiting}"] = {}
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        await pilot.press("3")
        await chosen(pilot, waiting)
        await pilot.press("c")
        await shows(pilot, "Cancel request 550e8400?")
        await pilot.press("y")
        await shows(pilot, "550e8400 is cancelled.")
        await chosen(pilot, ended)
        await pilot.press("c")
        await shows(pilot, "This request has ended.")
    assert administration.paths("DELETE") == [f"/api/requests/{waiting}"]


async def test_what_the_gateway_refuses_is_said_and_nothing_else_happens(administration, console, shows):
    refusal = {"error": {"message": "Another program holds the port.", "code": "port_taken"}}
    administration.answers["POST /admin/api/slots/load"] = (409, refusal)
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "phi-4-mini")
        await chosen(pilot, "phi-4-mini")
        await pilot.press("s")
        await shows(pilot, "409: Another program holds the port.", "● connected")


async def test_one_deed_at_a_time(administration, console, shows):
    administration.answers["POST /admin/api/slots/load"] = (202, {})
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "phi-4-mini")
        await chosen(pilot, "phi-4-mini")
        administration.hold.clear()
        await pilot.press("s", "s")
        await shows(pilot, "Still at work: Loading phi-4-mini")
        administration.hold.set()
        await shows(pilot, "is being loaded.")
    assert len(administration.paths("POST")) == 1


async def test_a_filter_hides_what_does_not_contain_it(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "phi-4-mini")
        await pilot.press("slash", *"CRASH", "enter")
        shown = await shows(pilot, "only “CRASH”")
        assert "llama-3.2-1b   " in shown
        assert "gemma" not in shown
        await pilot.press("2")
        await shows(pilot, "Nothing here contains “CRASH”.")
        await pilot.press("escape")
        await shows(pilot, "gemma-3-4b-it   ")


async def test_what_is_typed_behind_the_slash_belongs_to_the_filter(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "phi-4-mini")
        for character, key in [("/", "slash"), ("s", "s"), ("/", "slash"), ("q", "q"), ("\r", "enter")]:
            pilot.app.post_message(events.Key(key, character))
        await shows(pilot, "only “s/q”")
        assert pilot.app.is_running


async def test_keys_of_other_views_say_that_they_do_nothing_here(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        await pilot.press("p")
        await shows(pilot, "This key does nothing in this view.")


async def test_tab_goes_round_the_views(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        for view in ("2 Queues", "3 Requests", "4 Crashes", "1 Models"):
            await pilot.press("tab")
            await shows(pilot, f"[{view}]")
        await pilot.press("shift+tab")
        await shows(pilot, "[4 Crashes]")


async def test_keys_behind_a_question_do_nothing(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        await pilot.press("x")
        await shows(pilot, "y yes")
        await pilot.press("2", "tab", "s", "enter")
        await shows(pilot, "[1 Models]", "y yes")
        await pilot.press("q")
        await pilot.pause()
        assert pilot.app.is_running
        assert len(pilot.app.screen_stack) == 1
    assert administration.paths("POST") == []


async def test_q_quits(administration, console, shows):
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        await pilot.press("q")
        await wait_until(lambda: not app.is_running)


async def test_the_chosen_line_stays_chosen_when_lines_come_and_go(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "phi-4-mini")
        await chosen(pilot, "llama-3.2-1b")
        del administration.answers["GET /admin/api/slots"][0]
        await pilot.press("R")
        await wait_until(lambda: "gemma-3-4b-it" in pilot.app._table._live_rows[2].key)
        assert pilot.app._table.chosen.name == "llama-3.2-1b"


async def test_looks_never_pile_up(administration, console, shows):
    async with console(every=0.001).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        administration.hold.clear()
        await wait_until(lambda: administration.at_once == 1)
        for _ in range(5):
            await pilot.press("R")
        asked = len(administration.asked)
        administration.hold.set()
        await wait_until(lambda: len(administration.asked) > asked + 10)
    assert administration.most_at_once == 1


async def test_it_reconnects_when_the_gateway_comes_back(administration, console, shows):
    async with console(every=0.01).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "● connected")
        await administration.stop()
        await shows(pilot, "○ reconnecting in", "Nobody answers at", "gemma-3-4b-it")
        await administration.start()
        await pilot.press("R")
        await shows(pilot, "● connected")


@pytest.mark.parametrize(
    ("status", "said"), [(401, "401: the token is wrong or has expired."), (403, "403: this token may not do that")]
)
async def test_a_refused_token_is_said_clearly(administration, console, shows, status, said):
    administration.answers["GET /admin/api/slots"] = (status, {"error": {"message": "No."}})
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, said, "reconnecting in 30 s")
    assert len(administration.asked) == 1


async def test_what_is_no_gateway_is_told_apart(gateway, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "is no gateway.")
    assert gateway.paths("GET") == ["/admin/api/slots", "/admin/models"]


async def test_throughput_comes_from_the_counters(administration, console, shows):
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "gemma")
        snapshot = app.snapshot
        [gemma, ocr] = snapshot.queues
        await pilot.press("2")
        app._show(replace(snapshot, at=snapshot.at + 30, queues=(replace(gemma, processed=gemma.processed + 21), ocr)))
        await shows(pilot, "12      42")
