"""Files as the APIs see them: sealed on the way in, opened on the way out, one part at a time."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from functools import partial

from stellwerk.api._transactions import RunInTransaction
from stellwerk.core.clock import Clock
from stellwerk.core.principal import Principal
from stellwerk.records import files
from stellwerk.records.files import StoredFile, Whose
from stellwerk.storage.room import no_room
from stellwerk.storage.sealing import Seal, SealBroken

PART_BYTES = 512 * 1024
KEPT_SECONDS = 30 * 24 * 3600.0


class FileStore:
    def __init__(
        self,
        *,
        run: RunInTransaction,
        fetch: RunInTransaction,
        seal: Seal,
        clock: Clock,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        """`has_room` says whether the disk has any for what clients send."""
        self._has_room = has_room
        self.run = run
        self.fetch = fetch
        self.clock = clock
        self._seal = seal

    async def add(
        self, caller: Principal, whose: Whose, *, purpose: str, name: str, content: bytes, seconds: float = KEPT_SECONDS
    ) -> StoredFile:
        """Stores a file of the caller's for so many seconds. Raises Conflict when there is no room for him, and
        Unavailable."""
        if not self._has_room():
            raise no_room()
        now = self.clock.now()
        file = StoredFile(
            id=new_file_id(),
            key_id=caller.key_id,
            user_id=caller.user_id,
            purpose=purpose,
            name=name,
            size=len(content),
            created_at=now,
            expires_at=now + seconds,
        )
        # Megabytes take milliseconds to seal.
        parts = await asyncio.to_thread(self._seal_parts, file.id, content)
        await self.run(partial(files.create, file=file, parts=parts, whose=whose))
        return file

    def _seal_parts(self, file_id: str, content: bytes) -> list[bytes]:
        cuts = range(0, len(content), PART_BYTES)
        return [self._seal_part(file_id, n, content[cut : cut + PART_BYTES]) for n, cut in enumerate(cuts)]

    async def find(self, file_id: str) -> StoredFile:
        """Raises NotFound, code `file_not_found`."""
        return await self.fetch(partial(files.find, file_id=file_id))

    async def parts(self, file_id: str) -> AsyncIterator[bytes]:
        """The content, a part at a time. A part that cannot be opened ends it: the secret has been replaced."""
        number = 0
        while (sealed := await self.fetch(partial(files.read_part, file_id=file_id, part=number))) is not None:
            try:
                yield await asyncio.to_thread(self._seal.open, sealed, purpose=_purpose(file_id, number))
            except SealBroken:
                raise files.file_not_found() from None
            number += 1

    async def read(self, file_id: str) -> bytes:
        return b"".join([part async for part in self.parts(file_id)])

    def _seal_part(self, file_id: str, number: int, content: bytes) -> bytes:
        return self._seal.seal(content, purpose=_purpose(file_id, number))

    async def begin(self, file: StoredFile) -> "FileWriter":
        """A file that is written bit by bit, and not seen before it is complete."""
        await self.run(partial(files.begin, file=file))
        return FileWriter(self, file)

    async def append(self, file_id: str, number: int, content: bytes) -> None:
        sealed = await asyncio.to_thread(self._seal_part, file_id, number, content)
        await self.run(partial(files.append, file_id=file_id, part=number, content=sealed))


class FileWriter:
    def __init__(self, store: FileStore, file: StoredFile) -> None:
        self.file_id = file.id
        self.size = 0
        self._store = store
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._number = 0

    async def write(self, content: bytes) -> None:
        self._pieces.append(content)
        self._waiting += len(content)
        self.size += len(content)
        if self._waiting >= PART_BYTES:
            await self.flush()

    async def flush(self) -> None:
        if self._waiting:
            await self._store.append(self.file_id, self._number, b"".join(self._pieces))
            self._pieces, self._waiting = [], 0
            self._number += 1


def new_file_id() -> str:
    return f"file-{os.urandom(12).hex()}"


def _purpose(file_id: str, number: int) -> bytes:
    return f"{file_id} {number}".encode()
