"""Every view as it stands on a screen of 80×24, compared with what is kept in `tests/golden/console`."""

import os
import re
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "console"
RENEW = "STELLWERK_RENEW_GOLDEN"


def compare(name: str, shown: str) -> None:
    file = GOLDEN / f"{name}.txt"
    if os.environ.get(RENEW):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(shown + "\n", encoding="utf-8")
    assert shown + "\n" == file.read_text(encoding="utf-8"), f"set {RENEW}=1 when this is wanted"


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(
    ("key", "name", "wanted"), [("1", "models", "phi-4-mini"), ("2", "queues", "‖"), ("3", "requests", "550e"),
                                ("4", "crashes", "Aborted")]
)  # fmt: skip
async def test_a_view_fits_on_a_small_screen(administration, console, shows, key, name, wanted, language):
    async with console(language=language).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "0.6.0")
        await pilot.press(key)
        await shows(pilot, wanted)
        shown = await shows(pilot, "● verbunden" if language == "de" else "● connected")
    assert all(len(line) <= 80 for line in shown.splitlines())
    compare(f"{name}.{language}", shown)


@pytest.mark.parametrize("key", "?r")
async def test_a_small_window_fits_in_front_of_a_view(administration, console, shows, key):
    async with console(language="de").run_test(size=(80, 24)) as pilot:
        await shows(pilot, "0.6.0")
        await pilot.press(key)
        shown = await shows(pilot, "╰", "╮")
    compare({"?": "help", "r": "resolution"}[key] + ".de", shown)


async def test_the_documented_routes_fill_the_same_view(documented, console, shows):
    async with console("eyJhbGciOiJIUzI1NiJ9.e30.c2ln").run_test(size=(80, 24)) as pilot:
        shown = await shows(pilot, "deepseek")
        assert re.search(r"gemma +● running +8000 +1h 0m +– +✓", shown)
        assert re.search(r"deepseek +○ stopped +8001 +1h 0m +large +–", shown)
        await pilot.press("2")
        assert re.search(r"gemma +5/10 +3 +█████░░░░░ +50% 1234 +12", await shows(pilot, "5/10"))
        await pilot.press("3")
        await shows(pilot, "This address does not tell that.")
        await pilot.press("4")
        await shows(pilot, "01-15 16:30:00  gemma", "Connection timeout", "second")


async def test_colours_tell_states_and_load(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "crashed")
        table = pilot.app.query_one("#models")
        assert [str(row.cells[1].style) for row in table._live_rows] == ["green", "yellow", "red", ""]
        await pilot.press("2")
        await shows(pilot, "80%")
        bars = [row.cells[3] for row in pilot.app.query_one("#queues")._live_rows]
        assert [str(bar.spans[0].style) for bar in bars] == ["yellow", "red"]


async def test_a_wider_screen_gives_room_to_long_names(administration, console, shows):
    long = "a-model-with-a-very-long-name-that-does-not-fit-into-a-column"
    administration.answers["GET /admin/api/models/local"].append({"name": long, "detected_type": "text"})
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, long[:20] + "")
        assert long not in await shows(pilot, "…")
        await pilot.press("ctrl+end")
        assert long in (await shows(pilot, long)).splitlines()
        await pilot.resize_terminal(140, 40)
        await shows(pilot, long)


async def test_a_file_that_cannot_be_used_does_not_look_like_one_that_can(administration, console, shows):
    row = {"name": "odd", "detected_type": "text", "problem": "it is damaged"}
    administration.answers["GET /admin/api/models/local"].append(row)
    async with console().run_test(size=(80, 24)) as pilot:
        assert re.search(r"odd +✗ unusable", await shows(pilot, "unusable"))
        await pilot.press("ctrl+end")
        await shows(pilot, "odd: it is damaged")
        await pilot.press("x")
        await shows(pilot, "odd is not loaded.")


async def test_what_was_said_goes_with_the_view_that_it_was_about(administration, console, shows):
    async with console().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "0.6.0")
        await pilot.press("p")
        await shows(pilot, "This key does nothing in this view.")
        await pilot.press("2")
        assert "does nothing" not in await shows(pilot, "‖")


async def test_nothing_that_steers_a_terminal_is_shown(administration, console, shows):
    administration.answers["GET /admin/api/models/local"].append({"name": "[red]b\x1b[2J\x07ad\u202e[/red]"})
    async with console().run_test(size=(80, 24)) as pilot:
        shown = await shows(pilot, "[red]bad[/red]")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
