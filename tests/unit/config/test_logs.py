"""What the three log formats write."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from config.logs import QUIET, set_up_logging
from config.settings import LogFormat, LogSettings

LOGGER = logging.getLogger("agent.test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, levels = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)


def stream_for(chosen: str, *, level: str = "info", secrets: tuple[str, ...] = ()) -> io.StringIO:
    stream = io.StringIO()
    settings = LogSettings.model_validate({"format": chosen, "level": level})
    set_up_logging(settings, secrets=[SecretStr(secret) for secret in secrets], stream=stream)
    return stream


def test_text_has_time_level_logger_message_and_extras() -> None:
    stream = stream_for("text")
    LOGGER.info("call ended", extra={"call_sid": "a:main:1.2", "pbx": "main", "status": "no answer", "queue": None})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d INFO    agent\.test: "
        r'call ended call_sid=a:main:1\.2 pbx=main status="no answer"\n',
        stream.getvalue(),
    )


def test_the_journal_gets_a_priority_on_every_line_and_no_time() -> None:
    stream = stream_for("journal", level="debug")
    LOGGER.debug("one")
    LOGGER.info("two", extra={"site": "x"})
    LOGGER.warning("three")
    LOGGER.error("four")
    LOGGER.critical("five")
    assert stream.getvalue().splitlines() == [
        "<7>agent.test: one",
        "<6>agent.test: two site=x",
        "<4>agent.test: three",
        "<3>agent.test: four",
        "<3>agent.test: five",
    ]


def test_json_is_one_object_a_line_and_an_extra_replaces_nothing_of_the_record() -> None:
    stream = stream_for("json")
    LOGGER.info("çağrı", extra={"call_sid": "s", "level": "forged", "count": 3, "odd": {1}})
    told = json.loads(stream.getvalue())
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "info",
        "logger": "agent.test",
        "message": "çağrı",
        "call_sid": "s",
        "count": 3,
        "odd": "{1}",
    }


@pytest.mark.parametrize("chosen", ["text", "journal", "json"])
def test_a_traceback_is_kept(chosen: str) -> None:
    stream = stream_for(chosen)
    try:
        raise ValueError("geht\nnicht")
    except ValueError:
        LOGGER.exception("a bug")
    written = stream.getvalue()
    assert "Traceback" in written
    assert "ValueError: geht" in written
    if chosen == "journal":
        assert all(line.startswith("<3>") for line in written.splitlines())


@pytest.mark.parametrize("chosen", ["text", "journal", "json"])
def test_no_secret_is_written_whatever_way_it_takes(chosen: str) -> None:
    secret = 'gehe"im\\ş'
    stream = stream_for(chosen, secrets=(secret, "abc"))
    LOGGER.info("log-in with %s", secret, extra={"dsn": f"postgresql://u:{secret}@h", "seen": [secret]})
    LOGGER.info("typed", extra={"given": SecretStr("other-one"), "password": "third-one", "ami_secret": "fourth-one"})
    try:
        raise ValueError(f"refused: {secret}")
    except ValueError:
        LOGGER.exception("refused")
    written = stream.getvalue()
    for word in ("gehe", "other-one", "third-one", "fourth-one"):
        assert word not in written
    assert "********" in written


@pytest.mark.parametrize("chosen", ["text", "journal"])
def test_what_a_caller_sends_forges_no_line_and_steers_no_terminal(chosen: str) -> None:
    stream = stream_for(chosen)
    LOGGER.info("call of %s", "Ayşe\n<3>forged\x1b[2J", extra={"caller_name": "a\r\nb\u2028c\x9b"})
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", written)
    assert "Ayşe\\n<3>forged\\x1b[2J" in written


def test_libraries_are_quiet_while_we_debug() -> None:
    stream = stream_for("text", level="debug")
    logging.getLogger("sqlalchemy.engine.Engine").info("SELECT 1")
    logging.getLogger("apscheduler.executors.default").info("Running job")
    logging.getLogger("asyncio").debug("Using selector")
    logging.getLogger("uvicorn.access").info("GET /")
    LOGGER.debug("ours")
    assert stream.getvalue().count("\n") == 1


def test_setting_up_again_replaces_the_first_set_up() -> None:
    first, second = stream_for("text"), stream_for("text")
    LOGGER.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_auto_is_the_journals_format_only_where_systemd_reads_this_stream(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("logs") / "err"
    with file.open("w+", encoding="utf-8") as stream:
        status = file.stat()
        settings = LogSettings(format=LogFormat.AUTO)
        set_up_logging(settings, stream=stream, environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        LOGGER.info("to the journal")
        set_up_logging(settings, stream=stream, environ={"JOURNAL_STREAM": "1:1"})
        LOGGER.info("elsewhere")
    journal, text = file.read_text(encoding="utf-8").splitlines()
    assert journal == "<6>agent.test: to the journal"
    assert text.endswith(" INFO    agent.test: elsewhere")
