import os
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from stellwerk.http.certificates import (
    CertificateError,
    check_certificate,
    ensure_certificate,
    fingerprint,
    ssl_context,
)

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
NAMES = ("localhost", "vm", "vm.local")
ADDRESSES = (IPv4Address("127.0.0.1"), IPv6Address("::1"), IPv4Address("192.168.1.7"))


@pytest.fixture
def certificates(tmp_path):
    """`certificates(days=3, names=…)`: what is there after so many days."""

    def ensure(days=0, names=NAMES, addresses=ADDRESSES):
        return ensure_certificate(tmp_path / "certs", names=names, addresses=addresses, now=NOW + timedelta(days=days))

    return ensure


def read(path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def alternatives(path):
    found = read(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName)), set(found.get_values_for_type(x509.IPAddress))


def contents(made):
    folder = made.certificate.parent
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def verifies(made, name, when=NOW):
    """Whether OpenSSL, as a client, accepts the certificate for this name or address."""
    try:
        ip_address(name)
        kind = "-verify_ip"
    except ValueError:
        kind = "-verify_hostname"
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", kind, name]
    command += ["-attime", str(int(when.timestamp())), "-CAfile", str(made.authority), str(made.certificate)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_first_certificate_covers_the_machine_and_verifies_against_its_authority(certificates):
    made = certificates()
    assert alternatives(made.certificate) == (set(NAMES), set(ADDRESSES))
    assert made.warnings == ()
    for name in (*NAMES, *ADDRESSES):
        assert verifies(made, str(name))
    for name in ("example.org", "vm.example", "192.168.1.8", "2001:db8::1"):
        assert not verifies(made, name)


def test_keys_are_for_the_owner_only_and_so_is_the_folder(certificates):
    made = certificates()
    folder = made.certificate.parent
    assert sorted(contents(made)) == ["authority.crt", "authority.key", "server.crt", "server.key"]
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in ("authority.key", "server.key")] == [0o600] * 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_keys_are_for_the_owner_only_whatever_the_umask_is(certificates):
    before = os.umask(0)
    try:
        made = certificates()
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600


def test_a_certificate_that_is_still_good_stays(certificates):
    before = contents(certificates())
    assert contents(certificates(days=366)) == before


def test_a_certificate_is_renewed_thirty_days_before_it_ends_by_the_same_authority(certificates):
    made = certificates()
    before = contents(made)
    ends = read(made.certificate).not_valid_after_utc
    assert ends - read(made.certificate).not_valid_before_utc == timedelta(days=397)
    assert made.renew_at == ends - timedelta(days=30)
    renewed = certificates(days=367)
    after = contents(renewed)
    assert after["authority.crt"] == before["authority.crt"]
    assert after["server.crt"] != before["server.crt"]
    assert after["server.key"] != before["server.key"]
    assert verifies(renewed, "localhost", NOW + timedelta(days=700))


@pytest.mark.parametrize(
    "more",
    [
        {"names": (*NAMES, "printer.lan")},
        {"addresses": (*ADDRESSES, IPv4Address("10.1.2.3"))},
        {"addresses": (*ADDRESSES, IPv6Address("fd00::2"))},
    ],
)
def test_a_new_name_or_address_of_the_machine_brings_a_new_certificate(certificates, more):
    before = contents(certificates())
    made = certificates(days=1, **more)
    names, addresses = alternatives(made.certificate)
    assert names == set(more.get("names", NAMES))
    assert addresses == set(more.get("addresses", ADDRESSES))
    assert contents(made)["authority.crt"] == before["authority.crt"]


def test_a_name_or_address_that_is_gone_brings_no_new_certificate(certificates):
    before = contents(certificates())
    assert contents(certificates(names=NAMES[:1], addresses=ADDRESSES[:1])) == before


def test_names_are_compared_without_case(certificates):
    before = contents(certificates())
    assert contents(certificates(names=("LOCALHOST", "VM", "vm.Local"))) == before


def test_the_authority_can_vouch_for_nothing_on_the_rest_of_the_internet(certificates):
    made = certificates()
    limits = read(made.authority).extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    names = {each.value for each in limits.value.permitted_subtrees if isinstance(each, x509.DNSName)}
    networks = [each.value for each in limits.value.permitted_subtrees if isinstance(each, x509.IPAddress)]
    assert names == {"localhost", "local", "lan", "home.arpa", "internal", "vm", "vm.local"}
    assert all(network.is_private or str(network) == "100.64.0.0/10" for network in networks)


def test_what_was_asked_for_at_first_is_vouched_for_also_outside_local_networks(certificates):
    public = IPv4Address("198.51.100.7")
    made = certificates(names=(*NAMES, "gateway.example.org"), addresses=(*ADDRESSES, public))
    assert made.warnings == ()
    assert verifies(made, "gateway.example.org")
    assert verifies(made, str(public))


def test_what_the_authority_may_not_vouch_for_later_is_left_out_and_said(certificates):
    before = contents(certificates())
    made = certificates(names=(*NAMES, "gateway.example.org"), addresses=(*ADDRESSES, IPv4Address("198.51.100.7")))
    assert contents(made) == before
    [warning] = made.warnings
    assert "does not cover gateway.example.org, 198.51.100.7." in warning
    assert "authority.crt" in warning


def test_names_that_are_none_are_left_out_and_said(certificates):
    made = certificates(names=(*NAMES, "*", "bücher.example"))
    assert alternatives(made.certificate)[0] == set(NAMES)
    assert made.warnings == ("These are no names that a certificate can carry: *, bücher.example.",)


def test_an_authority_that_ends_is_replaced_and_no_certificate_outlives_it(certificates):
    first = certificates()
    before = contents(first)["authority.crt"]
    late = certificates(days=3600)
    assert contents(late)["authority.crt"] == before
    assert read(late.certificate).not_valid_after_utc == read(late.authority).not_valid_after_utc
    new = certificates(days=3640)
    assert contents(new)["authority.crt"] != before
    assert verifies(new, "localhost", NOW + timedelta(days=3700))


def test_a_clock_that_runs_late_destroys_nothing(certificates):
    before = contents(certificates())
    assert contents(certificates(days=-3000)) == before


@pytest.mark.parametrize("lost", [["server.crt"], ["server.key"], ["server.crt", "server.key"]])
def test_lost_server_files_are_made_again_by_the_same_authority(certificates, lost):
    made = certificates()
    before = contents(made)
    for name in lost:
        (made.certificate.parent / name).unlink()
    again = certificates()
    assert contents(again)["authority.crt"] == before["authority.crt"]
    ssl_context(again)


@pytest.mark.parametrize("name", ["server.crt", "server.key"])
@pytest.mark.parametrize("rest", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_damaged_server_files_are_made_again(certificates, name, rest):
    made = certificates()
    (made.certificate.parent / name).write_bytes(rest)
    ssl_context(certificates())


def test_a_pair_of_which_half_is_new_is_made_again(certificates):
    made = certificates()
    old = made.key.read_bytes()
    certificates(days=370)
    made.key.write_bytes(old)
    ssl_context(certificates(days=371))


def test_a_start_that_was_broken_off_before_the_authority_was_complete_is_repaired(certificates):
    made = certificates()
    folder = made.certificate.parent
    for name in ("authority.crt", "server.crt", "server.key"):
        (folder / name).unlink()
    (folder / ".server.key.new").write_bytes(b"half")
    ssl_context(certificates())
    assert not (folder / ".server.key.new").exists()


def test_an_authority_without_its_key_serves_until_its_certificate_ends(certificates):
    made = certificates()
    made.authority.with_suffix(".key").unlink()
    assert certificates(days=300).warnings == ()
    [warning] = certificates(days=390).warnings
    assert "cannot be renewed" in warning
    assert "authority.key" in warning
    with pytest.raises(CertificateError, match=r"authority\.key is missing or is not the key"):
        certificates(days=398)


def test_a_damaged_authority_is_never_replaced_without_being_asked(certificates):
    made = certificates()
    made.authority.write_bytes(b"garbage")
    with pytest.raises(CertificateError, match=r"authority\.crt holds no certificate\. Remove "):
        certificates()
    assert made.authority.read_bytes() == b"garbage"


def test_a_certificate_that_somebody_else_put_there_is_not_replaced(certificates, tmp_path):
    folder = tmp_path / "certs"
    folder.mkdir()
    make_own(folder, "server")
    before = (folder / "server.crt").read_bytes()
    with pytest.raises(CertificateError, match="was not made by Stellwerk"):
        certificates()
    assert (folder / "server.crt").read_bytes() == before


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "certs").write_text("a file")
    with pytest.raises(CertificateError, match="certs cannot be read or written"):
        ensure_certificate(tmp_path / "certs", names=NAMES, addresses=ADDRESSES, now=NOW)


def test_many_at_once_make_one_authority_and_one_certificate(certificates):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: certificates().certificate.read_bytes(), range(16)))
    assert len(set(made)) == 1


def test_the_fingerprint_is_the_one_that_clients_show(certificates):
    made = certificates()
    command = ["openssl", "x509", "-in", str(made.authority), "-noout", "-fingerprint", "-sha256"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert shown.endswith(f"={fingerprint(made.authority)}")


# --- an operator's own


def make_own(folder, stem, *more, days="2"):
    """A certificate that signed itself, as many make their own."""
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=own", "-days", days)
    paths = ("-keyout", str(folder / f"{stem}.key"), "-out", str(folder / f"{stem}.crt"))
    subprocess.run(["openssl", *new, *paths, *(more or ("-nodes",))], check=True, capture_output=True)
    return folder / f"{stem}.crt", folder / f"{stem}.key"


def test_a_certificate_of_the_operators_own_is_used_as_it_is(tmp_path):
    certificate, key = make_own(tmp_path, "own", days="90")
    checked = check_certificate(certificate, key, now=datetime.now(UTC))
    assert (checked.certificate, checked.key, checked.authority, checked.warnings) == (certificate, key, None, ())
    ssl_context(checked)


def test_a_certificate_of_the_operators_own_that_ends_soon_is_said(tmp_path):
    [warning] = check_certificate(*make_own(tmp_path, "own"), now=datetime.now(UTC)).warnings
    assert "own.crt ends on " in warning


def test_what_an_operator_named_and_cannot_be_used_is_refused_in_a_sentence(tmp_path):
    certificate, key = make_own(tmp_path, "own")
    other, _ = make_own(tmp_path, "other")
    _, locked = make_own(tmp_path, "locked", "-passout", "pass:hunter2")
    now = datetime.now(UTC)
    (tmp_path / "empty").touch()
    for pair, sentence in [
        ((tmp_path / "none.crt", key), "The certificate .*none.crt does not exist."),
        ((certificate, tmp_path / "none.key"), "The private key .*none.key does not exist."),
        ((tmp_path / "empty", key), "empty holds no certificate that could be used"),
        ((certificate, certificate), r"own\.crt holds no private key that could be used"),
        (
            (certificate, locked),
            r"locked\.key holds no private key that could be used: it has to be PEM, without passw",
        ),
        ((other, key), r"own\.key does not belong to the certificate in .*other\.crt\."),
        ((tmp_path, key), "The certificate in .* cannot be read: "),
    ]:
        with pytest.raises(CertificateError, match=sentence):
            check_certificate(*pair, now=now)
    with pytest.raises(CertificateError, match=r"own\.crt ended on "):
        check_certificate(certificate, key, now=now + timedelta(days=3))


def test_a_context_refuses_a_key_with_a_password_and_never_asks_for_it(tmp_path, certificates):
    certificate, key = make_own(tmp_path, "locked", "-passout", "pass:hunter2")
    made = certificates()
    with pytest.raises(CertificateError, match="cannot be used"):
        ssl_context(type(made)(certificate=certificate, key=key, authority=None, renew_at=NOW))


def test_a_context_speaks_tls_1_2_and_newer_only(certificates):
    context = ssl_context(certificates())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE


def test_keys_are_on_the_curve_that_every_client_knows(certificates):
    made = certificates()
    for path in (made.key, made.authority.with_suffix(".key")):
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        assert key.curve.name == "secp256r1"


def test_importing_the_module_does_not_import_the_library():
    program = "import sys, stellwerk.app.application, stellwerk.http.tls; print('cryptography' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
