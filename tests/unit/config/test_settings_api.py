"""The settings of the services' API: a port on this machine only."""

import pytest
from pydantic import ValidationError

from config.settings import ApiSettings


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        (None, None),
        ("127.0.0.1:8015", ("127.0.0.1", 8015)),
        ("[::1]:8015", ("::1", 8015)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_a_port_of_this_machine_can_be_named(listen: str | None, port: tuple[str, int] | None) -> None:
    assert ApiSettings(listen=listen).port == port


@pytest.mark.parametrize("listen", ["0.0.0.0:8015", "[::]:8015", "192.168.1.4:8015", "pbx.example.com:8015"])
def test_nothing_is_opened_to_the_network(listen: str) -> None:
    with pytest.raises(ValidationError, match="no TLS"):
        ApiSettings(listen=listen)


@pytest.mark.parametrize("listen", ["", ":8015", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "8015", "a@127.0.0.1:1",
                                    "127.0.0.1:8015/x", "127.0.0.1:8015?a", "http://127.0.0.1:8015"])  # fmt: skip
def test_what_is_no_address_and_port_is_refused_with_an_example(listen: str) -> None:
    with pytest.raises(ValidationError, match=r"127\.0\.0\.1:8015"):
        ApiSettings(listen=listen)
