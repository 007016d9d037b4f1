"""Names in whatever bytes they come: Turkish ones above all."""

import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.events import ChannelOpened
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.pbx.text import MAX_NAME_LENGTH, UNTOLD, decoded, name_of, repaired

AT = datetime(2026, 11, 22, tzinfo=UTC)
TURKISH = (
    "İSTANBUL",
    "ılık ışık",
    "Şükrü Gündoğdu",
    "ŞÖFÖR ÇAĞRI",
    "Ayşe Öztürk",
    "Çiğdem Işık",
    "ĞÜİŞÖÇ ğüışöç",
    "GÜNEŞ",
)
WESTERN = ("Müller-Lüdenscheidt", "José Ñandú", "François Lefèvre", "Ærøskøbing", "Straße 5 €")


def misread(text: str, encoding: str) -> str:
    """UTF-8 as somebody shows it who takes it for another byte set; its holes are control characters, as on Windows."""
    shown = ""
    for byte in text.encode():
        try:
            shown += bytes([byte]).decode(encoding)
        except UnicodeDecodeError:
            shown += chr(byte)
    return shown


@pytest.mark.parametrize("name", TURKISH)
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-9", "cp1254"])
def test_turkish_names_are_read_from_every_byte_set_that_holds_them(name: str, encoding: str) -> None:
    assert decoded(name.encode(encoding), "cp1254") == name


@pytest.mark.parametrize("name", WESTERN)
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_western_names_are_read_where_no_country_is_set(name: str, encoding: str) -> None:
    assert decoded(name.encode(encoding)) == name


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", TURKISH)
def test_letters_stay_composed_or_not_as_they_were_told(name: str, form: str) -> None:
    told = unicodedata.normalize(form, name)  # type: ignore[arg-type]  # one of its literals

    assert name_of(decoded(told.encode(), "cp1254")) == told


def test_two_byte_sets_may_stand_in_one_value() -> None:
    assert decoded("Ayşe ".encode() + "Şükrü".encode("cp1254"), "cp1254") == "Ayşe Şükrü"


def test_a_letter_that_a_buffer_cut_is_shown_as_such_and_the_others_are_read() -> None:
    cut = "Gülşen Iş".encode()[:-1]

    assert decoded(cut, "cp1254") == f"Gülşen I{UNTOLD}"


def test_bytes_without_a_letter_are_shown() -> None:
    assert decoded(b"A\x81\x9eB", "cp1254") == f"A{UNTOLD * 2}B"


def test_what_the_pbx_itself_replaced_stays_replaced() -> None:
    assert name_of(decoded("\ufffd\ufffdkr\ufffd".encode())) == "\ufffd\ufffdkr\ufffd"


@pytest.mark.parametrize(
    "name", [*TURKISH, *WESTERN, "L’Oréal – “Paris”", "Ștefan", "Dvořák", "Мария", "محمد", "李小龍", "😀"]
)
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1254"])
@pytest.mark.parametrize("times", [1, 2])
def test_utf8_that_was_read_as_another_byte_set_is_repaired(name: str, encoding: str, times: int) -> None:
    told = name
    for _ in range(times):
        told = misread(told, encoding)

    assert repaired(told) == name


@pytest.mark.parametrize(
    "name",
    [
        *TURKISH, *WESTERN, "CAFÉ®", "CAFÉ…", "Ö…", "Ü™", "“Ağa”", "JOÃO", "IRMÃ", "FRANÇ»", "Nº 5", "± 3", "Ä", "É",
        "Åland", "Şirket™", "naïve…", "Ð", "ðÞ", "Мария", "محمد", "Ç", "x²", "50 €",
    ],
)  # fmt: skip
def test_a_name_that_is_right_is_left_alone(name: str) -> None:
    assert repaired(name) == name


def test_a_name_without_end_is_cut_and_says_so() -> None:
    kept = name_of("Ş" * 10_000)

    assert len(kept) == MAX_NAME_LENGTH
    assert kept.endswith("Ş…")


@given(st.binary(max_size=300), st.sampled_from(["cp1252", "cp1254", "iso8859-9", "cp857"]))
def test_any_bytes_are_text_that_every_database_takes_and_no_byte_vanishes(raw: bytes, encoding: str) -> None:
    text = decoded(raw, encoding)

    text.encode()  # no half of a surrogate pair
    assert bool(text) == bool(raw)
    assert len(text) >= sum(byte < 0x80 for byte in raw)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_utf8_is_read_as_it_is(text: str) -> None:
    assert decoded(text.encode(), "cp1254") == text


@given(st.text(alphabet=st.characters(codec=None), max_size=400))
def test_whatever_a_name_is_it_can_be_made_fit(text: str) -> None:
    assert len(name_of(text)) <= MAX_NAME_LENGTH


@pytest.mark.parametrize("name", ["Şükrü", misread("Şükrü", "cp1252"), misread("Şükrü", "cp1254")])
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-9"])
def test_an_asterisk_s_caller_has_the_name_that_was_meant(name: str, encoding: str) -> None:
    told = name.encode(encoding, "replace" if encoding == "utf-8" else "strict") if name == "Şükrü" else name.encode()
    frame = b"Event: Newchannel\r\nUniqueid: 1.1\r\nCallerIDNum: 101\r\nCallerIDName: " + told

    event = AsteriskInterpreter("cp1254").interpret(frame, AT)

    assert isinstance(event, ChannelOpened)
    assert event.caller_name == "Şükrü"
