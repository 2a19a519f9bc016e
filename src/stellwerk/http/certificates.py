"""The certificate of an HTTPS listener: made at the first start, renewed in time, or the operator's own.

Clients trust the authority that is made with it once; certificates that are made later are signed by the same.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from stellwerk.http.authority import (
    AUTHORITY,
    Facts,
    Pair,
    is_signed_by,
    issue,
    make_authority,
    may_address,
    may_name,
    public_key_of,
    read_facts,
)
from stellwerk.http.interfaces import IPAddress, is_host_name

_RENEWED_BEFORE = timedelta(days=30)
_MOST_BYTES = 256 * 1024
_Read = TypeVar("_Read")
_log = logging.getLogger("stellwerk.http")


class CertificateError(Exception):
    """There is no certificate that could be used. The message is a sentence for the operator and names the file."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files of a listener. `authority` is what clients have to trust, None for an operator's own certificate."""

    certificate: Path
    key: Path
    authority: Path | None
    renew_at: datetime
    """When it should be replaced; some weeks before it ends."""
    warnings: tuple[str, ...] = ()
    """Sentences for the log: what the certificate does not cover, why it could not be renewed yet."""


def ensure_certificate(
    folder: Path, *, names: Sequence[str], addresses: Sequence[IPAddress], now: datetime
) -> Certificate:
    """The certificate in `folder`, made or renewed when it has to be. May be called by several processes at a time.

    Raises CertificateError. Takes some milliseconds: call it in a thread.
    """
    hosts = tuple(dict.fromkeys(name.lower() for name in names if is_host_name(name)))
    unfit = sorted({name for name in names if not is_host_name(name)})
    try:
        with _locked(folder):
            made = _Folder(folder).ensure(hosts, tuple(dict.fromkeys(addresses)), now)
    except OSError as error:
        raise CertificateError(
            f"The certificates in {folder} cannot be read or written: {error.strerror or error}."
        ) from error
    if not unfit:
        return made
    warning = f"These are no names that a certificate can carry: {', '.join(unfit)}."
    return msgspec.structs.replace(made, warnings=(*made.warnings, warning))


def check_certificate(certificate: Path, key: Path, *, now: datetime) -> Certificate:
    """An operator's own certificate, with its chain, and its key. Raises CertificateError when they are of no use."""
    facts = _read_own(certificate, read_facts, "certificate")
    if _read_own(key, public_key_of, "private key") != facts.key:
        raise CertificateError(f"The private key in {key} does not belong to the certificate in {certificate}.")
    if facts.ends <= now:
        raise CertificateError(f"The certificate in {certificate} ended on {facts.ends:%Y-%m-%d}.")
    renew_at = facts.ends - _RENEWED_BEFORE
    warnings = () if now < renew_at else (f"The certificate in {certificate} ends on {facts.ends:%Y-%m-%d}.",)
    return Certificate(certificate=certificate, key=key, authority=None, renew_at=renew_at, warnings=warnings)


def ssl_context(certificate: Certificate) -> ssl.SSLContext:
    """For a server: TLS 1.2 or newer, HTTP/1.1 only. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password of its own OpenSSL would ask for one on the terminal and wait.
        context.load_cert_chain(certificate.certificate, certificate.key, password="")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or "unknown reason"
        raise CertificateError(f"The certificate in {certificate.certificate} cannot be used: {reason}.") from error
    return context


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a PEM certificate as clients show it: `AB:CD:…`. Raises OSError and ValueError."""
    binary = ssl.PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii").strip())
    return hashlib.sha256(binary).digest().hex(":").upper()


class _Folder:
    """The four files of a folder that is locked."""

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "authority.crt"
        self.authority_key = folder / "authority.key"
        self.certificate = folder / "server.crt"
        self.key = folder / "server.key"

    def ensure(self, names: Sequence[str], addresses: Sequence[IPAddress], now: datetime) -> Certificate:
        self._refuse_strangers()
        authority = self._ensure_authority(names, addresses, now)
        served = [name for name in names if may_name(authority, name)]
        reached = [address for address in addresses if may_address(authority, address)]
        left_out = [name for name in names if name not in served] + [str(a) for a in addresses if a not in reached]
        warnings = [self._advise(f"The certificate does not cover {', '.join(left_out)}")] if left_out else []
        facts = self._present()
        covered = facts is not None and facts.names >= set(served) and facts.addresses >= set(reached)
        if facts is None or not covered or now >= facts.ends - _RENEWED_BEFORE:
            try:
                facts = self._renew(served, reached, now)
            except CertificateError as error:
                if facts is None or facts.ends <= now:
                    raise
                warnings.append(f"The certificate cannot be renewed: {error}")
        return Certificate(
            certificate=self.certificate,
            key=self.key,
            authority=self.authority,
            renew_at=facts.ends - _RENEWED_BEFORE,
            warnings=tuple(warnings),
        )

    def _refuse_strangers(self) -> None:
        """A certificate that somebody else put here is not ours to replace."""
        try:
            facts = read_facts(_read(self.certificate) or b"")
        except ValueError:
            return
        if AUTHORITY not in facts.issuer and not is_signed_by(
            _read(self.certificate) or b"", _read(self.authority) or b""
        ):
            raise CertificateError(
                f"{self.certificate} was not made by Stellwerk. "
                "Name it in the configuration to use it, or move it away to get a new one."
            )

    def _ensure_authority(self, names: Sequence[str], addresses: Sequence[IPAddress], now: datetime) -> Facts:
        if (present := _read(self.authority)) is not None:
            try:
                facts = read_facts(present)
            except ValueError:
                raise CertificateError(self._advise(f"{self.authority} holds no certificate")) from None
            if now < facts.ends - _RENEWED_BEFORE:
                return facts
            _log.warning("the certificate authority ends; clients have to trust a new one: %s", self.authority)
        made = make_authority(names, addresses, now)
        # The certificate last: a key alone is replaced, so a start that was broken off leaves nothing to repair.
        _replace((self.authority_key, made.key, 0o600), (self.authority, made.certificate, 0o644))
        return read_facts(made.certificate)

    def _present(self) -> Facts | None:
        """None when there is no pair of certificate and key that our authority has signed."""
        certificate, key, authority = _read(self.certificate), _read(self.key), _read(self.authority)
        if certificate is None or key is None or authority is None:
            return None
        try:
            facts = read_facts(certificate)
            fits = public_key_of(key) == facts.key and is_signed_by(certificate, authority)
        except ValueError:
            return None
        return facts if fits else None

    def _renew(self, names: Sequence[str], addresses: Sequence[IPAddress], now: datetime) -> Facts:
        try:
            authority = Pair(_read(self.authority) or b"", _read(self.authority_key) or b"")
            made = issue(authority, names, addresses, now)
            _replace((self.key, made.key, 0o600), (self.certificate, made.certificate, 0o644))
        except ValueError:
            problem = f"{self.authority_key} is missing or is not the key of {self.authority}"
            raise CertificateError(self._advise(problem)) from None
        except OSError as error:
            raise CertificateError(f"{self.certificate} cannot be written: {error.strerror or error}.") from error
        return read_facts(made.certificate)

    def _advise(self, problem: str) -> str:
        return (
            f"{problem}. Remove {self.authority} and restart to get a new certificate authority; "
            "clients have to trust the new one."
        )


def _read_own(path: Path, understand: Callable[[bytes], _Read], what: str) -> _Read:
    try:
        content = _read(path)
    except OSError as error:
        raise CertificateError(f"The {what} in {path} cannot be read: {error.strerror or error}.") from error
    if content is None:
        raise CertificateError(f"The {what} {path} does not exist.")
    try:
        return understand(content)
    except ValueError:
        raise CertificateError(
            f"{path} holds no {what} that could be used: it has to be PEM, without password."
        ) from None


def _read(path: Path) -> bytes | None:
    """Raises OSError when a file is there and cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None


def _replace(*files: tuple[Path, bytes, int]) -> None:
    """Each whole or not at all, none before all are written, and a key never readable by others for a moment."""
    written: list[tuple[Path, Path]] = []
    for path, content, mode in files:
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        written.append((new, path))
    for new, path in written:
        new.replace(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The folder itself is the lock: a read-only one with good certificates serves as well.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
