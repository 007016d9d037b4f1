"""What an address of the central database tells, and when it asks for TLS."""

import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr

from sync.central.connection import CentralAddress
from sync.errors import UplinkRefused


@pytest.mark.parametrize(
    ("dsn", "label"),
    [
        ("postgresql://edge:hunter2@central.example:5432/sentiric", "central.example:5432/sentiric"),
        ("postgresql://edge:hunter2@central.example/sentiric?sslmode=disable", "central.example/sentiric"),
        ("postgresql://edge:hunter2@[2001:db8::1]:6432/sentiric", "2001:db8::1:6432/sentiric"),
        ("postgresql:///sentiric?host=/run/postgresql&password=hunter2", "/run/postgresql/sentiric"),
        ("postgresql:///sentiric", "the local server/sentiric"),
        ("postgresql://edge:hunter2@[broken/sentiric", "the central database"),
        ("postgresql://edge:hunter2@host:hunter2/sentiric", "the central database"),
    ],
)
def test_the_label_names_server_and_database_and_no_secret(dsn: str, label: str) -> None:
    address = CentralAddress(dsn, password=SecretStr("hunter2"))

    assert address.label == label
    assert "hunter2" not in repr(address)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://edge@127.0.0.1/sentiric",
        "postgresql://edge@[::1]:5432/sentiric",
        "postgresql://edge@localhost:5432/sentiric",
        "postgresql:///sentiric?host=/run/postgresql",
        "postgresql:///sentiric",
        "postgresql://edge@central.example/sentiric?sslmode=disable",
    ],
)
def test_tls_is_left_out_on_this_machine_or_if_told_so(dsn: str) -> None:
    assert CentralAddress(dsn).tls() is False


@pytest.mark.parametrize("mode", ["", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-full"])
def test_another_machine_must_show_a_certificate_for_its_name(mode: str) -> None:
    context = CentralAddress(f"postgresql://edge@central.example/sentiric{mode}").tls()

    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_verify_ca_leaves_the_name_open_and_nothing_else() -> None:
    context = CentralAddress("postgresql://edge@central.example/sentiric?sslmode=verify-ca").tls()

    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname


def test_one_local_host_among_others_is_no_reason_to_leave_tls_out() -> None:
    assert CentralAddress("postgresql://edge@localhost,central.example/sentiric").tls()


def test_a_ca_file_that_cannot_be_used_is_told_by_name(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    dsn = "postgresql://edge@central.example/sentiric"

    with pytest.raises(UplinkRefused, match=r"cannot use the CA file .*missing\.pem: No such file"):
        CentralAddress(dsn, tls_ca_file=tmp_path / "missing.pem").tls()
    with pytest.raises(UplinkRefused, match=r"cannot use the CA file .*empty\.pem: "):
        CentralAddress(dsn, tls_ca_file=empty).tls()
