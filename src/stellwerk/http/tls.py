"""The TLS context of a listener that runs: it takes over a renewed certificate, and connections go on."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from stellwerk.core.clock import Clock
from stellwerk.http.certificates import Certificate, CertificateError, ssl_context

_CHECK_SECONDS = 60.0
_log = logging.getLogger("stellwerk.http")

ProvideCertificate = Callable[[datetime], Certificate]
"""Called in a thread with the present time, again and again. Raises CertificateError."""
_Stamp = tuple[tuple[int, int, int], ...]


class LiveContext:
    """`context` belongs into `Server`; after `open`, each new connection gets the newest certificate."""

    certificate: Certificate
    context: ssl.SSLContext

    def __init__(self, provide: ProvideCertificate, clock: Clock, *, check_seconds: float = _CHECK_SECONDS) -> None:
        self._provide = provide
        self._clock = clock
        self._check_seconds = check_seconds
        self._stamp: _Stamp = ()
        self._newest: ssl.SSLContext
        self._told: tuple[str, ...] = ()

    async def open(self) -> None:
        """Raises CertificateError: without a certificate there is nothing to serve with."""
        await self._take()
        self.context = self._newest
        # Runs in every handshake, also when the client names no host. To swap whole contexts is safe where loading
        # files into one that is in use is not: a pair of which half is new would leave it without a certificate.
        self.context.sni_callback = self._hand_out

    async def run(self) -> NoReturn:
        """Checks every minute: whether the certificate has to be renewed, and whether its files have changed."""
        while True:
            await asyncio.sleep(self._check_seconds)
            await self.check()

    async def check(self) -> bool:
        """Whether another certificate was taken over. What fails is logged once and tried again the next time."""
        try:
            return await self._take()
        except CertificateError as error:
            self._tell((f"{error} The listener goes on with the certificate that it has.",))
            return False

    async def _take(self) -> bool:
        certificate, stamp, context = await asyncio.to_thread(self._load)
        self.certificate = certificate
        self._tell(certificate.warnings)
        if context is None:
            return False
        if self._stamp:
            _log.info("the certificate has been taken over: %s", certificate.certificate)
        self._stamp = stamp
        self._newest = context
        return True

    def _load(self) -> tuple[Certificate, _Stamp, ssl.SSLContext | None]:
        """The context is None when the files are those that are in use."""
        certificate = self._provide(datetime.fromtimestamp(self._clock.now(), UTC))
        stamp = tuple(_stamp(path) for path in (certificate.certificate, certificate.key))
        return certificate, stamp, None if stamp == self._stamp else ssl_context(certificate)

    def _hand_out(self, connection: ssl.SSLObject, _name: str | None, used: ssl.SSLContext) -> None:
        if self._newest is not used:
            connection.context = self._newest

    def _tell(self, warnings: tuple[str, ...]) -> None:
        if warnings != self._told:
            self._told = warnings
            for warning in warnings:
                _log.warning("%s", warning)


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes whenever the file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}.") from error
    return status.st_ino, status.st_size, status.st_mtime_ns
