"""Which modules of Asterisk write a source, by modules.conf."""

import pytest

from agent.pbx.asterisk.writers import left_out, writers_of
from config.settings import SourceSettings


def source(kind: str, **more: str) -> SourceSettings:
    return SourceSettings.model_validate({"kind": kind, **more})


CSV = source("cdr-csv", path="/var/log/asterisk/cdr-csv/Master.csv")
CUSTOM = source("cdr-csv", path="/var/log/asterisk/cdr-custom/Master.csv")
ELSEWHERE = source("cdr-csv", path="/srv/cdr/Master.csv")
TABLE = source("cdr-mariadb", url="mariadb://u@h/d")
CEL = source("cel-csv", path="/var/log/asterisk/cel-custom/Master.csv")
QUEUE_LOG = source("queue-log", path="/var/log/asterisk/queue_log")


@pytest.mark.parametrize(
    ("one", "lines"),
    [
        (CSV, ["[modules]", "autoload=yes", "noload => cdr_custom.so"]),
        (CSV, ["autoload=no", "load => cdr_csv.so"]),
        (CSV, ["load = cdr_csv"]),
        (ELSEWHERE, ["autoload = yes", "noload = cdr_csv.so"]),
        (TABLE, ["autoload = yes", "noload = cdr_odbc.so", "noload = cdr_mysql.so"]),
        (QUEUE_LOG, ["autoload = no"]),
    ],
)
def test_one_module_that_comes_is_enough(one: SourceSettings, lines: list[str]) -> None:
    assert left_out(lines, [one]) == {}


@pytest.mark.parametrize(
    ("one", "lines"),
    [
        (CSV, ["autoload=yes", "noload => cdr_csv.so"]),
        (CSV, ["autoload=yes", "load => cdr_csv.so", "noload => cdr_csv.so"]),
        (CUSTOM, ["autoload=no", "load => cdr_csv.so"]),
        (TABLE, ["autoload=no"]),
        (CEL, ["autoload = yes", "noload = cel_custom"]),
    ],
)
def test_a_source_whose_module_stays_out_is_told_with_the_line_to_write(one: SourceSettings, lines: list[str]) -> None:
    (told,) = left_out(lines, [one]).values()
    assert f"in modules.conf, section [modules], write load = {writers_of(one)[0]}.so" in told
