import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Conflict, GatewayError, NotFound, Unavailable
from stellwerk.core.secrets import Secret
from stellwerk.engines.downloads import LIST_NAME, Downloads, DownloadSettings, RunSettings, TransferSettings
from stellwerk.engines.hub import Hub
from stellwerk.engines.model_files import ModelFiles
from tests.scripted_upstream import ScriptedUpstream
from tests.small_hub import Fault, SmallHub
from tests.tiny_gguf import write_tiny_chat_model

QUICK = TransferSettings(stall_seconds=60, backoff=(0, 0, 0))


@pytest.fixture
async def small_hub():
    hub = SmallHub()
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> bytes:
    return write_tiny_chat_model(tmp_path_factory.mktemp("hub") / "m.gguf").read_bytes()


@pytest.fixture
async def opened():
    """Makes downloads and stops them in the end."""
    made = []

    async def open_downloads(small_hub, folder, *, token=None, transfer=QUICK, reserve=0, run=None, **more):
        known = {name: more.pop(name) for name in ("parallel", "most") if name in more}
        downloads = Downloads(
            folder,
            Hub(small_hub.url, token),
            SystemClock(),
            settings=DownloadSettings(run=run or RunSettings(transfer=transfer, reserve_bytes=reserve), **known),
            **more,
        )
        made.append(downloads)
        await downloads.start()
        return downloads

    yield open_downloads
    for downloads in made:
        await downloads.stop()


async def finished(downloads, download):
    async with asyncio.timeout(60):
        return [one async for one in downloads.follow(download.id)][-1]


async def come(downloads, download, size):
    """Returns once so many bytes are on the disk."""
    async with asyncio.timeout(30), contextlib.aclosing(downloads.follow(download.id)) as changes:
        async for one in changes:
            if one.completed >= size:
                return


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != LIST_NAME)


# --- what comes


async def test_a_model_comes_whole_and_only_then_appears(small_hub, model, tmp_path, opened):
    small_hub.add("u/tiny-GGUF", {"tiny-Q4_K_M.gguf": model})
    seen = []

    async def on_done(download):
        seen.append((download.model_id, left_in(tmp_path)))

    downloads = await opened(small_hub, tmp_path, on_done=on_done)
    small_hub.faults.append(Fault(stop_after=1000))
    download = await downloads.add("hf.co/u/tiny-GGUF")
    assert (download.model_id, download.total) == ("tiny-Q4_K_M", len(model))
    await small_hub.stopped.wait()
    assert left_in(tmp_path) == ["tiny-Q4_K_M.gguf.part"]
    assert ModelFiles(tmp_path).scan().files == {}
    small_hub.go_on.set()
    done = await finished(downloads, download)
    assert (done.state, done.completed, done.error) == ("done", len(model), None)
    assert done.finished >= done.started
    assert seen == [("tiny-Q4_K_M", ["tiny-Q4_K_M.gguf"])]
    assert (tmp_path / "tiny-Q4_K_M.gguf").read_bytes() == model
    assert downloads.list() == [done]
    assert downloads.get(download.id) == done


async def test_the_token_is_shown_to_the_hub_and_to_nobody_that_it_leads_to(small_hub, model, tmp_path, opened):
    small_hub.add("u/gated", {"m.gguf": model}, gated=True)
    small_hub.tokens.add("hf_right")
    downloads = await opened(small_hub, tmp_path, token=Secret("hf_right"))
    assert (await finished(downloads, await downloads.add("u/gated"))).state == "done"
    assert {request.headers.get("authorization") for request in small_hub.hub.requests} == {"Bearer hf_right"}
    assert [request.headers.get("authorization") for request in small_hub.store.requests] == [None]


async def test_a_token_is_not_shown_again_to_a_hub_that_was_left(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.location = f"http://127.0.0.1:{small_hub.store.port}/back"

    async def back(talk):
        await talk.answer(b"", 302, [("location", f"{small_hub.url}/evil")])

    small_hub.store.script = back
    downloads = await opened(small_hub, tmp_path, token=Secret("hf_right"))
    failed = await finished(downloads, await downloads.add("u/r"))
    assert failed.state == "failed"
    assert [one.headers.get("authorization") for one in small_hub.hub.requests if one.path == "/evil"] == [None]


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://u:p@127.0.0.1/", "http://[", ""]
)
async def test_a_redirect_leads_to_http_only_and_not_for_ever(small_hub, model, tmp_path, opened, location):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.location = location or f"{small_hub.url}/u/r/resolve/0123456789abcdef0123456789abcdef01234567/m.gguf"
    downloads = await opened(small_hub, tmp_path)
    failed = await finished(downloads, await downloads.add("u/r"))
    assert (failed.state, "leads" in failed.error) == ("failed", True)
    assert sum("/resolve/" in request.path for request in small_hub.hub.requests) == (1 if location else 6)


async def test_all_parts_and_the_projector_appear_together(small_hub, model, tmp_path, opened):
    parts = {f"Q8_0/big-Q8_0-0000{number}-of-00002.gguf": model for number in (1, 2)}
    small_hub.add("u/big", {**parts, "mmproj-F16.gguf": model})
    downloads = await opened(small_hub, tmp_path)
    small_hub.faults.extend([Fault(), Fault(), Fault(stop_after=10)])
    download = await downloads.add("u/big:Q8_0")
    await small_hub.stopped.wait()
    assert {path.suffix for path in tmp_path.iterdir()} == {".part", ".json"}
    small_hub.go_on.set()
    done = await finished(downloads, download)
    assert [file.name for file in done.files] == left_in(tmp_path)
    assert left_in(tmp_path) == [
        "big-Q8_0-00001-of-00002.gguf",
        "big-Q8_0-00002-of-00002.gguf",
        "mmproj-big-F16.gguf",
    ]


async def test_a_hub_without_a_second_origin_and_without_checksums_works(model, tmp_path, opened):
    small_hub = SmallHub(redirect=False)
    await small_hub.start()
    small_hub.add("u/r", {"m.gguf": model}, sums={"m.gguf": "none"})
    downloads = await opened(small_hub, tmp_path)
    small_hub.faults.append(Fault(cut_after=5000))
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    assert (tmp_path / "m.gguf").read_bytes() == model
    await small_hub.stop()


# --- what goes wrong on the way


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 400_000), min_size=1, max_size=6))
def test_a_download_that_is_cut_anywhere_goes_on_there(model, tmp_path_factory, cuts):
    async def run():
        small_hub = SmallHub()
        await small_hub.start()
        folder = tmp_path_factory.mktemp("cut")
        small_hub.add("u/r", {"m.gguf": model})
        small_hub.faults.extend(Fault(cut_after=cut) for cut in cuts)
        patient = TransferSettings(backoff=(0,) * 8)
        downloads = Downloads(
            folder, Hub(small_hub.url), SystemClock(), settings=DownloadSettings(run=RunSettings(transfer=patient))
        )
        await downloads.start()
        try:
            done = await finished(downloads, await downloads.add("u/r"))
            assert (done.state, done.error) == ("done", None)
            assert (folder / "m.gguf").read_bytes() == model
            at = 0
            for request, cut in zip(small_hub.bodies(), [*cuts, len(model)], strict=False):
                assert request.headers.get("range") == (f"bytes={at}-" if at else None)
                at += cut
        finally:
            await downloads.stop()
            await small_hub.stop()

    asyncio.run(run())


async def test_a_server_without_ranges_starts_the_file_anew(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.extend([Fault(cut_after=5000), Fault(no_range=True)])
    downloads = await opened(small_hub, tmp_path)
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    assert (tmp_path / "m.gguf").read_bytes() == model
    assert len(small_hub.bodies()) == 2


async def test_another_content_behind_the_same_name_starts_the_file_anew(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(stop_after=5000))
    downloads = await opened(small_hub, tmp_path)
    download = await downloads.add("u/r")
    await small_hub.stopped.wait()
    small_hub.etag = "other-"
    small_hub.store.drop_connections()
    assert (await finished(downloads, download)).state == "done"
    assert [request.headers.get("range") for request in small_hub.bodies()] == [None, "bytes=5000-", None]


async def test_wrong_bytes_are_fetched_once_more_and_then_removed(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(wrong=True))
    downloads = await opened(small_hub, tmp_path)
    download = await downloads.add("u/r")
    assert (await finished(downloads, download)).state == "done"
    (tmp_path / "m.gguf").unlink()
    small_hub.faults.extend([Fault(wrong=True)] * 2)
    again = await downloads.add("u/r")
    assert again.id == download.id
    failed = await finished(downloads, again)
    assert (failed.state, failed.completed) == ("failed", 0)
    assert "checksum" in failed.error
    assert left_in(tmp_path) == []


async def test_a_wrong_checksum_at_the_hub_lets_nothing_in(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model}, sums={"m.gguf": hashlib.sha256(b"other").hexdigest()})
    downloads = await opened(small_hub, tmp_path)
    assert (await finished(downloads, await downloads.add("u/r"))).state == "failed"
    assert (len(small_hub.bodies()), left_in(tmp_path)) == (2, [])


async def test_what_is_no_gguf_never_gets_its_name(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": b"x" * 1000})
    small_hub.add("u/big", {"b-00001-of-00002.gguf": model, "b-00002-of-00002.gguf": model[:4] + b"\xff" * 500})
    downloads = await opened(small_hub, tmp_path)
    for name in ("u/r", "u/big"):
        failed = await finished(downloads, await downloads.add(name))
        assert (failed.state, "cannot be used" in failed.error) == ("failed", True)
        assert left_in(tmp_path) == []


async def test_a_hub_that_fails_is_asked_again_and_not_for_ever(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.extend([Fault(status=500), Fault(status=503), Fault(status=429, headers=(("retry-after", "0"),))])
    downloads = await opened(small_hub, tmp_path)
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    (tmp_path / "m.gguf").unlink()
    small_hub.always = Fault(status=500)
    failed = await finished(downloads, await downloads.add("u/r"))
    assert (failed.state, failed.error) == ("failed", "The hub failed.")
    assert len(small_hub.bodies()) == 8


async def test_a_hub_that_stops_sending_is_left_and_asked_again(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(stop_after=5000))
    downloads = await opened(small_hub, tmp_path, transfer=TransferSettings(stall_seconds=1.0, backoff=(0,)))
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    assert [request.headers.get("range") for request in small_hub.bodies()] == [None, "bytes=5000-"]


async def test_a_file_that_the_hub_refuses_says_what_to_do(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    downloads = await opened(small_hub, tmp_path)
    for status, words in ((401, "hub.token"), (404, "no more"), (418, "418")):
        small_hub.faults.append(Fault(status=status))
        failed = await finished(downloads, await downloads.add("u/r"))
        assert (failed.state, words in failed.error) == ("failed", True)


# --- pause, resume, cancel


async def test_a_paused_download_goes_on_where_it_was(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(stop_after=5000))
    downloads = await opened(small_hub, tmp_path)
    download = await downloads.add("u/r")
    await come(downloads, download, 5000)
    paused = await downloads.pause(download.id)
    assert (paused.state, paused.completed, paused.bytes_per_second) == ("paused", 5000, None)
    assert (await downloads.pause(download.id)).state == "paused"
    assert (tmp_path / "m.gguf.part").stat().st_size == 5000
    await downloads.resume(download.id)
    assert (await finished(downloads, download)).state == "done"
    assert [request.headers.get("range") for request in small_hub.bodies()] == [None, "bytes=5000-"]
    with pytest.raises(Conflict):
        await downloads.pause(download.id)
    with pytest.raises(Conflict):
        await downloads.cancel(download.id)


async def test_a_cancelled_download_leaves_nothing_and_can_begin_anew(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(stop_after=5000))
    downloads = await opened(small_hub, tmp_path)
    download = await downloads.add("u/r")
    await small_hub.stopped.wait()
    with pytest.raises(Conflict):
        await downloads.forget(download.id)
    cancelled = await downloads.cancel(download.id)
    assert (cancelled.state, cancelled.completed) == ("cancelled", 0)
    assert left_in(tmp_path) == []
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    await downloads.forget(download.id)
    with pytest.raises(NotFound):
        downloads.get(download.id)
    with pytest.raises(NotFound):
        downloads.follow(download.id)
    assert left_in(tmp_path) == ["m.gguf"]


async def test_followers_see_the_way_and_the_end(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(stop_after=5000))
    downloads = await opened(small_hub, tmp_path)
    download = await downloads.add("u/r")

    async def follow():
        return [one.state async for one in downloads.follow(download.id)]

    following = asyncio.create_task(follow())
    await small_hub.stopped.wait()
    small_hub.go_on.set()
    async with asyncio.timeout(30):
        states = await following
    assert states[0] == "running"
    assert states[-1] == "done"
    assert [one async for one in downloads.follow(download.id)] == [downloads.get(download.id)]


async def test_followers_of_a_gateway_that_stops_are_let_go(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(stop_after=5000))
    downloads = await opened(small_hub, tmp_path)
    download = await downloads.add("u/r")
    following = asyncio.create_task(finished(downloads, download))
    await small_hub.stopped.wait()
    await downloads.stop()
    assert (await following).state == "running"


# --- several of them


async def test_the_same_model_twice_is_one_download(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m-Q4_K_M.gguf": model})
    small_hub.faults.append(Fault(stop_after=5000))
    downloads = await opened(small_hub, tmp_path)
    found = await asyncio.gather(*(downloads.add(name) for name in ("u/r", "hf.co/u/r:Q4_K_M", "u/r/m-Q4_K_M.gguf")))
    assert len({download.id for download in found}) == 1
    small_hub.go_on.set()
    await finished(downloads, found[0])
    assert (await downloads.add("u/r")).state == "done"
    assert len(small_hub.bodies()) == 1


async def test_two_run_at_once_and_the_others_wait(small_hub, model, tmp_path, opened):
    for number in range(4):
        small_hub.add(f"u/r{number}", {f"m{number}.gguf": model})
    small_hub.always = Fault(stop_after=100)
    downloads = await opened(small_hub, tmp_path)
    started = [await downloads.add(f"u/r{number}") for number in range(4)]
    assert [downloads.get(one.id).state for one in started] == ["running", "running", "queued", "queued"]
    await downloads.pause(started[2].id)
    await downloads.pause(started[0].id)
    assert [downloads.get(one.id).state for one in started] == ["paused", "running", "paused", "running"]
    small_hub.go_on.set()
    await downloads.resume(started[0].id)
    assert [(await finished(downloads, started[number])).state for number in (0, 1, 3)] == ["done"] * 3


async def test_two_quantisations_share_their_projector(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m-Q4_0.gguf": model, "m-Q8_0.gguf": model, "mmproj-F16.gguf": model})
    downloads = await opened(small_hub, tmp_path)
    both = [await downloads.add("u/r:Q4_0"), await downloads.add("u/r:Q8_0")]
    assert [(await finished(downloads, one)).state for one in both] == ["done", "done"]
    assert left_in(tmp_path) == ["m-Q4_0.gguf", "m-Q8_0.gguf", "mmproj-m-F16.gguf"]
    assert len(small_hub.bodies()) == 3


async def test_a_file_of_somebody_else_is_never_overwritten(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    (tmp_path / "m.gguf").write_bytes(b"mine")
    downloads = await opened(small_hub, tmp_path)
    with pytest.raises(Conflict, match="Another file"):
        await downloads.add("u/r")
    (tmp_path / "m.gguf").write_bytes(b"x" * len(model))
    failed = await finished(downloads, await downloads.add("u/r"))
    assert (failed.state, "Another file" in failed.error) == ("failed", True)
    (tmp_path / "m.gguf").write_bytes(model)
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    assert small_hub.bodies() == []


async def test_two_downloads_never_make_a_file_of_the_same_name(small_hub, model, tmp_path, opened):
    small_hub.add("u/one", {"m.gguf": model})
    small_hub.add("u/two", {"m.gguf": model + b"more"})
    small_hub.faults.append(Fault(stop_after=100))
    downloads = await opened(small_hub, tmp_path)
    await downloads.add("u/one")
    with pytest.raises(Conflict):
        await downloads.add("u/two")


async def test_a_link_in_the_place_of_the_partial_file_is_not_followed(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.gguf.part").symlink_to(outside)
    downloads = await opened(small_hub, folder)
    assert (await finished(downloads, await downloads.add("u/r"))).state == "failed"
    assert outside.read_bytes() == b"mine"


async def test_the_list_is_bounded(small_hub, model, tmp_path, opened):
    for number in range(4):
        small_hub.add(f"u/r{number}", {f"m{number}.gguf": model})
    downloads = await opened(small_hub, tmp_path, most=2)
    first = await finished(downloads, await downloads.add("u/r0"))
    small_hub.always = Fault(stop_after=100)
    await downloads.add("u/r1")
    await downloads.add("u/r2")
    assert first.id not in {download.id for download in downloads.list()}
    with pytest.raises(Unavailable):
        await downloads.add("u/r3")


# --- the disk


async def test_a_download_without_room_does_not_begin(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    room = [len(model) - 1]
    downloads = await opened(small_hub, tmp_path, free_bytes=lambda folder: room[0])
    failed = await finished(downloads, await downloads.add("u/r"))
    assert (failed.state, "GB left" in failed.error) == ("failed", True)
    assert small_hub.bodies() == []
    room[0] += 1
    assert (await finished(downloads, await downloads.resume(failed.id))).state == "done"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_disk_that_becomes_full_keeps_what_came_until_there_is_room(small_hub, model, small_disk, opened):
    small_hub.add("u/r", {"m.gguf": model})
    filling = small_disk / "filling"
    with contextlib.suppress(OSError):
        filling.write_bytes(b"x" * ((1 << 20) - len(model) // 2))
    downloads = await opened(small_hub, small_disk, free_bytes=lambda folder: 1 << 40)
    failed = await finished(downloads, await downloads.add("u/r"))
    assert (failed.state, "full" in failed.error) == ("failed", True)
    kept = (small_disk / "m.gguf.part").stat().st_size
    assert 0 < kept < len(model)
    filling.unlink()
    assert (await finished(downloads, await downloads.resume(failed.id))).state == "done"
    assert small_hub.bodies()[-1].headers["range"] == f"bytes={kept}-"
    assert (small_disk / "m.gguf").read_bytes() == model


async def test_a_list_that_cannot_be_read_begins_anew(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    (tmp_path / LIST_NAME).write_bytes(b'[{"id": 1')
    downloads = await opened(small_hub, tmp_path)
    assert downloads.list() == []
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    assert json.loads((tmp_path / LIST_NAME).read_bytes())[0]["state"] == "done"


# --- restarts


async def test_a_restart_goes_on_with_what_ran_and_leaves_what_was_paused(small_hub, model, tmp_path, opened):
    for name in ("one", "two"):
        small_hub.add(f"u/{name}", {f"{name}.gguf": model})
    small_hub.always = Fault(stop_after=5000)
    first = await opened(small_hub, tmp_path)
    one, two = await first.add("u/one"), await first.add("u/two")
    await first.pause(two.id)
    await small_hub.stopped.wait()
    await first.stop()
    small_hub.always = Fault()
    second = await opened(small_hub, tmp_path)
    assert second.get(two.id).state == "paused"
    assert (await finished(second, one)).state == "done"
    assert (await finished(second, await second.resume(two.id))).state == "done"
    assert left_in(tmp_path) == ["one.gguf", "two.gguf"]
    third = await opened(small_hub, tmp_path)
    assert [download.state for download in third.list()] == ["done", "done"]


async def test_a_partial_file_of_unknown_origin_is_not_trusted(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    (tmp_path / "m.gguf.part").write_bytes(b"x" * 5000)
    downloads = await opened(small_hub, tmp_path)
    assert (await finished(downloads, await downloads.add("u/r"))).state == "done"
    assert [request.headers.get("range") for request in small_hub.bodies()] == [None]


async def test_a_restart_between_two_names_gives_the_rest_theirs(small_hub, model, tmp_path, opened):
    small_hub.add("u/big", {f"big-0000{number}-of-00002.gguf": model for number in (1, 2)})
    first = await opened(small_hub, tmp_path)
    done = await finished(first, await first.add("u/big"))
    await first.stop()
    (tmp_path / "big-00001-of-00002.gguf").rename(tmp_path / "big-00001-of-00002.gguf.part")
    stored = json.loads((tmp_path / LIST_NAME).read_bytes())
    stored[0]["state"] = "verifying"
    (tmp_path / LIST_NAME).write_text(json.dumps(stored))
    second = await opened(small_hub, tmp_path)
    assert (await finished(second, done)).state == "done"
    assert left_in(tmp_path) == ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]
    assert len(small_hub.bodies()) == 2


async def test_a_list_that_names_files_elsewhere_is_put_aside(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    first = await opened(small_hub, tmp_path)
    await finished(first, await first.add("u/r"))
    await first.stop()
    data = (tmp_path / LIST_NAME).read_text().replace('"local":"m.gguf"', '"local":"../m.gguf"')
    (tmp_path / LIST_NAME).write_text(data.replace('"done"', '"running"'))
    assert (await opened(small_hub, tmp_path)).list() == []
    assert (tmp_path / ".downloads.unreadable").exists()


async def test_a_folder_that_cannot_be_used_fails_the_download_and_not_the_start(small_hub, model, tmp_path, opened):
    small_hub.add("u/r", {"m.gguf": model})
    (tmp_path / "models").write_bytes(b"a file")
    downloads = await opened(small_hub, tmp_path / "models")
    with pytest.raises(GatewayError, match="models folder"):
        await downloads.add("u/r")


PROGRAM = """
import asyncio, sys
from pathlib import Path
from stellwerk.core.clock import SystemClock
from stellwerk.engines.downloads import Downloads
from stellwerk.engines.hub import Hub

async def main():
    downloads = Downloads(Path(sys.argv[2]), Hub(sys.argv[1]), SystemClock())
    await downloads.start()
    async for one in downloads.follow((await downloads.add("u/r")).id):
        print(one.state, one.completed, flush=True)

asyncio.run(main())
"""


async def until_line(stream, last):
    async for line in stream:
        yield line
        if line == last:
            return


async def test_a_killed_process_is_continued_from_what_is_on_the_disk(small_hub, model, tmp_path, opened):
    elsewhere = ScriptedUpstream()
    await elsewhere.start()
    small_hub.add("u/r", {"m.gguf": model})
    small_hub.faults.append(Fault(stop_after=100_000))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, small_hub.url, str(tmp_path), stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{elsewhere.port}", "HF_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    async with asyncio.timeout(60):
        lines = [line async for line in until_line(process.stdout, b"running 100000\n")]
    assert lines[-1] == b"running 100000\n"
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    downloads = await opened(small_hub, tmp_path)
    (download,) = downloads.list()
    assert (await finished(downloads, download)).state == "done"
    assert small_hub.bodies()[-1].headers["range"] == "bytes=100000-"
    assert (tmp_path / "m.gguf").read_bytes() == model
    assert elsewhere.requests == [], "the library asked a hub that is not the configured one"
    assert not (tmp_path / "home").exists()
    await elsewhere.stop()
