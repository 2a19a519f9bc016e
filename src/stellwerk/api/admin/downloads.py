"""/admin/api/models/download(s): models on their way from the hub."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from stellwerk.api._endpoints import Answered, Asked, Endpoint, Registry
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.download_shapes import (
    DOWNLOAD,
    DOWNLOAD_BEGUN,
    DOWNLOADED,
    DownloadBegun,
    DownloadBody,
    DownloadedModel,
    DownloadId,
    DownloadShape,
    show_begun,
    show_download,
    show_downloaded,
    to_reference,
)
from stellwerk.api.admin.local_models import LocalModels, wants_no_wait
from stellwerk.api.admin.models import HUB_ERRORS
from stellwerk.core.errors import Conflict, NotFound, Unavailable, UpstreamError
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.engines.download_part import DiskFull
from stellwerk.engines.downloads import Download
from stellwerk.http.exchange import Exchange
from stellwerk.records import audit

_TAG = "Downloads"
_EVENTS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
_LOOK = 1.0
"""Seconds between two looks whether the client or the gateway has gone."""
_SILENCE = 15
"""So many looks without an event are followed by a comment, so that nothing between takes the stream for dead."""


class DownloadsAPI:
    def __init__(self, administration: Administration, local: LocalModels) -> None:
        self._administration = administration
        self._local = local

    def register(self, registry: Registry) -> None:
        registry.add(self._beginning(), *self._reading(), *self._steering())

    def _beginning(self) -> Endpoint:
        return Endpoint(
            method="POST",
            path="/admin/api/models/download",
            access=ADMINS,
            tag=_TAG,
            summary="Fetch a model from the hub into the models folder",
            description="With all its parts and its projector. The answer comes when it is here; after ten minutes, "
            "or at once when asked so, it is 202 and the download goes on, also over a restart of the gateway. "
            "Fetching the same model twice is one download.",
            handler=self._download,
            body=DownloadBody,
            body_example={"repo_id": DOWNLOADED["repo"], "filename": DOWNLOADED["filename"]},
            answer=DownloadedModel,
            example=DOWNLOADED,
            accepted=DownloadBegun,
            accepted_example=DOWNLOAD_BEGUN,
            errors=HUB_ERRORS,
        )

    def _reading(self) -> tuple[Endpoint, ...]:
        reading: dict[str, Any] = {"method": "GET", "access": OBSERVERS, "tag": _TAG}
        one = {"download_id": DownloadId}
        return (
            Endpoint(
                path="/admin/api/models/downloads",
                summary="List the downloads, newest first",
                handler=self._list,
                answer=list[DownloadShape],
                example=[DOWNLOAD],
                **reading,
            ),
            Endpoint(
                path="/admin/api/models/downloads/{download_id}",
                summary="Show a download",
                handler=self._show,
                path_parameters=one,
                answer=DownloadShape,
                example=DOWNLOAD,
                errors=(NotFound,),
                **reading,
            ),
            Endpoint(
                path="/admin/api/models/downloads/{download_id}/events",
                summary="Follow a download",
                description="Server-sent events: each has the download as it stands, some five times a second while "
                "it runs. The stream ends with the download.",
                handler=self._follow,
                path_parameters=one,
                answer=DownloadShape,
                example=f"data: {msgspec.json.encode(DOWNLOAD).decode()}\n\n",
                media="text/event-stream",
                errors=(NotFound,),
                **reading,
            ),
        )

    def _steering(self) -> tuple[Endpoint, ...]:
        path = "/admin/api/models/downloads/{download_id}"
        steering: dict[str, Any] = {
            "access": ADMINS,
            "tag": _TAG,
            "path_parameters": {"download_id": DownloadId},
            "answer": DownloadShape,
            "errors": (NotFound, Conflict, Unavailable),
        }
        return (
            Endpoint(
                method="POST",
                path=f"{path}/pause",
                summary="Pause a download",
                description="What has come is kept, also over a restart of the gateway.",
                handler=self._pause,
                example={**DOWNLOAD, "status": "paused"},
                **steering,
            ),
            Endpoint(
                method="POST",
                path=f"{path}/resume",
                summary="Go on with a download that is paused, has failed or was cancelled",
                handler=self._resume,
                example=DOWNLOAD,
                **steering,
            ),
            Endpoint(
                method="POST",
                path=f"{path}/cancel",
                summary="Give a download up and remove what has come",
                handler=self._cancel,
                example={**DOWNLOAD, "status": "cancelled", "completed": 0},
                **steering,
            ),
        )

    # --- what they do

    async def _download(self, asked: Asked) -> DownloadedModel | Answered:
        self._local.check_enabled()
        body: DownloadBody = asked.body
        reference, filename = to_reference(body)
        repository = self._local.downloads.repository(reference, filename)
        await self._record(asked, "model.download", f"repository:{repository}", {"file": filename})
        download = await self._local.downloads.add(reference, filename)
        waits = body.wait and not wants_no_wait(asked.request.exchange.headers)
        if waits:
            download = await self._end_of(download)
        if download.state == "done":
            return show_downloaded(download, filename)
        if download.state == "failed" and download.error_code == DiskFull.code:
            raise Unavailable(download.error or "The disk is full.", code=DiskFull.code)
        if download.state == "failed":
            raise UpstreamError(download.error or "The download failed.", code="download_failed")
        if download.state == "cancelled":
            raise Conflict("The download was cancelled.", code="download_cancelled")
        begun = show_begun(download)
        return Answered(status=202, body=begun, headers=((b"location", begun.status_url.encode()),))

    async def _end_of(self, download: Download) -> Download:
        """As it stands when it is over, paused, or when an answer may not wait any longer."""

        async def follow() -> None:
            async for state in self._local.downloads.follow(download.id):
                if state.is_final or state.state == "paused":
                    return

        following = asyncio.ensure_future(follow())
        try:
            await self._local.wait(following)
        finally:
            following.cancel()
        return self._local.downloads.get(download.id)

    async def _list(self, _: Asked) -> list[DownloadShape]:
        return [show_download(download) for download in self._local.downloads.list()]

    async def _show(self, asked: Asked) -> DownloadShape:
        return show_download(self._local.downloads.get(asked.parameters["download_id"]))

    async def _follow(self, asked: Asked) -> None:
        exchange = asked.request.exchange
        following = self._local.downloads.follow(asked.parameters["download_id"])
        exchange.start(200, ((b"x-request-id", asked.request.id.encode()), *_EVENTS))
        if exchange.method != "HEAD":
            await _write_events(exchange, following, self._local.stopping)
        exchange.finish()

    async def _pause(self, asked: Asked) -> DownloadShape:
        return await self._steer(asked, "pause")

    async def _resume(self, asked: Asked) -> DownloadShape:
        return await self._steer(asked, "resume")

    async def _cancel(self, asked: Asked) -> DownloadShape:
        return await self._steer(asked, "cancel")

    async def _steer(self, asked: Asked, verb: str) -> DownloadShape:
        self._local.check_enabled()
        downloads, download_id = self._local.downloads, asked.parameters["download_id"]
        model = downloads.get(download_id).model_id
        await self._record(asked, f"download.{verb}", f"download:{download_id}", {"model": model})
        act = {"pause": downloads.pause, "resume": downloads.resume, "cancel": downloads.cancel}[verb]
        return show_download(await asyncio.shield(act(download_id)))

    async def _record(self, asked: Asked, action: str, subject: str, details: dict[str, Any]) -> None:
        await self._administration.change(
            asked,
            lambda connection, actor, now: audit.append(connection, actor, action, subject, details, now=now),
        )


async def _write_events(exchange: Exchange, following: AsyncIterator[Download], stopping: Callable[[], bool]) -> None:
    """One event for each state of the download, until it is over or nobody is there any more."""
    looks = 0
    coming: asyncio.Future[Download] = asyncio.ensure_future(anext(following))
    try:
        while not exchange.closed and not stopping():
            await asyncio.wait({coming}, timeout=_LOOK)
            if not coming.done():
                looks += 1
                if looks % _SILENCE == 0:
                    exchange.write(b": it goes on\n\n")
                continue
            looks = 0
            try:
                download = coming.result()
            except StopAsyncIteration:
                return
            exchange.write(b"data: " + msgspec.json.encode(show_download(download)) + b"\n\n")
            coming = asyncio.ensure_future(anext(following))
    finally:
        coming.cancel()
