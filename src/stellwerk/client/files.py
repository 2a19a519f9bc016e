"""Files and batches of a gateway; blocks. `async_files` is its twin."""

from collections.abc import Mapping
from pathlib import Path

from stellwerk.client import calls
from stellwerk.client.caller import Caller
from stellwerk.client.ocr import read_file
from stellwerk.client.shapes import Batch, File


class Files:
    """`client.files`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def upload(self, file: str | Path | bytes, purpose: str = "batch", *, name: str | None = None) -> File:
        """`file` is a path or the content itself. Raises BadAddress for one that cannot be read."""
        data = file if isinstance(file, bytes) else read_file(Path(file))
        return self._caller.do(calls.upload(data, name or name_of(file), purpose))

    def get(self, file: str) -> File:
        return self._caller.do(calls.show_file(file))

    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[File]":
        """Newest first; `after` is the id of the last one of the page before."""
        return self._caller.do(calls.list_files(after, limit))

    def content(self, file: str) -> bytes:
        return self._caller.do(calls.file_content(file))

    def delete(self, file: str) -> None:
        self._caller.do(calls.delete_file(file))


class Batches:
    """`client.batches`: many requests in one file, made as jobs."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def create(
        self,
        file: str,
        endpoint: str = "/v1/chat/completions",
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Batch:
        """`file` is the id of an upload with the purpose `batch`."""
        return self._caller.do(calls.create_batch(file, endpoint, metadata))

    def get(self, batch: str) -> Batch:
        return self._caller.do(calls.show_batch(batch))

    def list(self, *, after: str | None = None, limit: int = 20) -> "list[Batch]":
        """Newest first; `after` is the id of the last one of the page before."""
        return self._caller.do(calls.list_batches(after, limit))

    def cancel(self, batch: str) -> Batch:
        return self._caller.do(calls.cancel_batch(batch))


def name_of(file: str | Path | bytes) -> str:
    return "upload" if isinstance(file, bytes) else Path(file).name
