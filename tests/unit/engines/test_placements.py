import asyncio
from pathlib import Path

import pytest

from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineOverrides
from stellwerk.engines.placements import Keeper, PlacementBook, read_placements, restore_order

WORD = EngineOverrides(type=ModelType.VISION, context=512, mmproj=Path("/models/mmproj.gguf"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_is_kept_is_read_again(tmp_path: Path):
    book = PlacementBook(tmp_path / "engines")
    book.pinned["a"] = True
    book.dismissed.add("demo")
    book.keep({4801: "a", 4802: "b"}, {"b": WORD})
    await book.flush()
    again = PlacementBook(tmp_path / "engines")
    assert await again.read() == {"b": WORD}
    assert again.to_restore == {4801: "a", 4802: "b"}
    assert again.pinned == {"a": True}
    assert again.dismissed == {"demo"}
    assert (tmp_path / "engines/placements.json").stat().st_mode & 0o777 == 0o600


async def test_what_was_not_restored_yet_is_not_forgotten(tmp_path: Path):
    book = PlacementBook(tmp_path)
    book.to_restore = {4801: "a", 4802: "b", 4803: "c"}
    # The second lives elsewhere by now, and the port of the third has another model.
    book.keep({4805: "b", 4803: "d"}, {})
    await book.flush()
    assert read_placements(tmp_path).ports == {4801: "a", 4803: "d", 4805: "b"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"ports": {"x": "a"}}', b"\xff\xfe", b'{"pinned": 5}'])
async def test_a_broken_file_counts_as_empty(tmp_path: Path, content: bytes):
    (tmp_path / "placements.json").write_bytes(content)
    book = PlacementBook(tmp_path)
    assert await book.read() == {}
    assert book.to_restore == {}


async def test_without_a_folder_nothing_is_kept():
    book = PlacementBook(None)
    book.keep({4801: "a"}, {})
    await book.flush()
    assert await book.read() == {}


async def test_of_many_states_the_last_one_is_on_the_disk(tmp_path: Path):
    keeper = Keeper(tmp_path, "state.json")
    for number in range(200):
        keeper.keep({"number": number})
        if number % 50 == 0:
            await asyncio.sleep(0)
    await keeper.flush()
    assert (tmp_path / "state.json").read_bytes() == b'{\n "number": 199\n}'
    assert names(tmp_path) == ["state.json"]


async def test_a_disk_that_takes_nothing_is_no_reason_to_stop(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    keeper = Keeper(tmp_path / "file", "state.json")
    keeper.keep({})
    await keeper.flush()
    keeper.keep({"a": 1})
    await keeper.flush()


def test_pinned_ones_come_first_and_the_bundled_one_last():
    ports = {4803: "c", 4801: "a", 4802: "b"}
    assert restore_order(ports, {"b": True, "z": True, "a": False}, ["demo", "c"]) == [
        ("b", 4802),
        ("z", None),
        ("a", 4801),
        ("c", 4803),
        ("demo", None),
    ]
