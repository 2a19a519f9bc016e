"""A small certificate authority for one machine, and the certificates that it signs. No files here: PEM in, PEM out.

`cryptography` is imported where it is used: most gateways never make a certificate, and it takes 50 ms.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

import msgspec

from stellwerk.http.interfaces import IPAddress
from stellwerk.http.peer import Network

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY = "Stellwerk authority"
"""How the name of every authority of ours begins."""

_AUTHORITY_LIFE = timedelta(days=3650)
_SERVER_LIFE = timedelta(days=397)
_CLOCKS_DIFFER = timedelta(hours=1)
_LOCAL_NAMES = ("localhost", "local", "lan", "home.arpa", "internal")
_LOCAL_NETWORKS: tuple[Network, ...] = (
    *(IPv4Network(text) for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *(IPv4Network(text) for text in ("100.64.0.0/10", "169.254.0.0/16")),
    *(IPv6Network(text) for text in ("::1/128", "fc00::/7", "fe80::/10")),
)


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class Facts(msgspec.Struct, frozen=True):
    """What a certificate says of itself."""

    begins: datetime
    ends: datetime
    issuer: str
    names: frozenset[str]
    addresses: frozenset[IPAddress]
    key: bytes
    """The public key, to be compared."""
    domains: tuple[str, ...] | None
    """What an authority may vouch for; None: everything. An operator may have put an own one in our place."""
    networks: tuple[Network, ...] | None


def make_authority(names: Iterable[str], addresses: Iterable[IPAddress], now: datetime) -> Pair:
    """An authority for ten years that can only vouch for local networks and for the names and addresses given.

    Whoever trusts it on a client, and whoever steals its key, gains nothing on the rest of the internet.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: clients that trusted an earlier authority must not take this one for it.
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, f"{AUTHORITY} {now:%Y-%m-%d %H:%M:%S}")])
    others = (each for each in addresses if not any(_holds(network, each) for network in _LOCAL_NETWORKS))
    networks = (*_LOCAL_NETWORKS, *(ip_network(each) for each in others))
    permitted: list[x509.GeneralName] = [
        *(x509.DNSName(each) for each in dict.fromkeys((*_LOCAL_NAMES, *names))),
        *(x509.IPAddress(each) for each in networks),
    ]
    builder = (
        _builder(name, name, key.public_key(), now, now + _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
    )
    return _sign(builder, key, key)


def issue(authority: Pair, names: Sequence[str], addresses: Sequence[IPAddress], now: datetime) -> Pair:
    """A certificate with a new key, for 397 days or until the authority ends. Raises ValueError for a bad authority."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signing = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey) or signing.public_key() != issuer.public_key():
        raise ValueError("the key is not the certificate's")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Stellwerk")])
    ends = min(now - _CLOCKS_DIFFER + _SERVER_LIFE, issuer.not_valid_after_utc)
    alternatives = [*(x509.DNSName(name) for name in names), *(x509.IPAddress(address) for address in addresses)]
    builder = (
        _builder(subject, issuer.subject, key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    return _sign(builder, key, signing)


def read_facts(certificate: bytes) -> Facts:
    """Of a PEM certificate. Raises ValueError when it is none."""
    from cryptography import x509  # noqa: PLC0415

    read = x509.load_pem_x509_certificate(certificate)
    names: list[str] = []
    addresses: list[Any] = []
    limits: list[x509.GeneralName] | None = None
    for extension in read.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = extension.value.get_values_for_type(x509.DNSName)
            addresses = extension.value.get_values_for_type(x509.IPAddress)
        elif isinstance(extension.value, x509.NameConstraints):
            limits = extension.value.permitted_subtrees
    return Facts(
        begins=read.not_valid_before_utc,
        ends=read.not_valid_after_utc,
        issuer=read.issuer.rfc4514_string(),
        names=frozenset(name.lower() for name in names),
        addresses=frozenset(addresses),
        key=_public_bytes(read.public_key()),
        domains=None if limits is None else tuple(each.value for each in limits if isinstance(each, x509.DNSName)),
        networks=None
        if limits is None
        else tuple(_network(each) for each in limits if isinstance(each, x509.IPAddress)),
    )


def public_key_of(key: bytes) -> bytes:
    """The public half of a PEM private key, to be compared with `Facts.key`. Raises ValueError when it is none."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        return _public_bytes(serialization.load_pem_private_key(key, password=None).public_key())
    except TypeError:
        raise ValueError("the key is protected by a password") from None


def is_signed_by(certificate: bytes, authority: bytes) -> bool:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        issuer = x509.load_pem_x509_certificate(authority)
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def may_name(authority: Facts, name: str) -> bool:
    return authority.domains is None or any(
        name == domain or name.endswith(f".{domain}") for domain in authority.domains
    )


def may_address(authority: Facts, address: IPAddress) -> bool:
    return authority.networks is None or any(_holds(network, address) for network in authority.networks)


def _builder(
    subject: "x509.Name",
    issuer: "x509.Name",
    key: "ec.EllipticCurvePublicKey",
    now: datetime,
    ends: datetime,
) -> "x509.CertificateBuilder":
    from cryptography import x509  # noqa: PLC0415

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_whole_seconds(now - _CLOCKS_DIFFER))
        .not_valid_after(_whole_seconds(ends))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> "x509.KeyUsage":
    from cryptography import x509  # noqa: PLC0415

    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(
    builder: "x509.CertificateBuilder", key: "ec.EllipticCurvePrivateKey", signing: "ec.EllipticCurvePrivateKey"
) -> Pair:
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    certificate = builder.sign(signing, hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _public_bytes(key: object) -> bytes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _network(limit: "x509.IPAddress") -> Network:
    """The library gives networks in limits and addresses elsewhere, with one type for both."""
    return limit.value if isinstance(limit.value, IPv4Network | IPv6Network) else ip_network(limit.value)


def _holds(network: Network, address: IPAddress) -> bool:
    return address.version == network.version and address in network


def _whole_seconds(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)
