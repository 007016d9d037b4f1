"""What Asterisk's own configuration keeps out of files and tables, and the line that mends it."""

from pathlib import Path

import pytest

from agent.pbx.asterisk.condition import CDRS_ARE_OFF, QUEUE_LOG_IS_OFF, findings_of, read_sections
from config.settings import AsteriskSettings, SourceSettings

GOOD = {
    "cdr.conf": "[general]\nenable=yes\nunanswered=yes\n[csv]\nusegmtime=yes\nloguniqueid=yes\nnewcdrcolumns=yes\n",
    "cel.conf": "[general]\nenable=yes\napps=dial,queue,park\nevents=ALL\n",
}
CSV = {"kind": "cdr-csv", "path": "/var/log/asterisk/cdr-csv/Master.csv"}
CUSTOM = {"kind": "cdr-csv", "path": "/var/log/asterisk/cdr-custom/Master.csv"}
TABLE = {"kind": "cdr-mariadb", "url": "mariadb://u@h/d"}
CEL = {"kind": "cel-csv", "path": "/var/log/asterisk/cel-custom/Master.csv"}
QUEUE_LOG = {"kind": "queue-log", "path": "/var/log/asterisk/queue_log"}


def found(directory: Path, source: dict[str, str] | None = None, **files: str) -> dict[str, str]:
    for name, text in (GOOD | {f"{name}.conf": text for name, text in files.items()}).items():
        (directory / name).write_text(text)
    sources = () if source is None else (SourceSettings.model_validate(source),)
    settings = AsteriskSettings(name="main", username="u", config_directory=directory, sources=sources)
    return findings_of(settings)


@pytest.mark.parametrize("source", [CSV, CUSTOM, TABLE, CEL, QUEUE_LOG, None])
def test_a_pbx_that_writes_all_down_is_told_nothing(tmp_path: Path, source: dict[str, str] | None) -> None:
    assert found(tmp_path, source) == {}


def test_what_is_recommended_for_cel_is_enough(tmp_path: Path) -> None:
    recommended = found(tmp_path, CEL, cel="[general]\nenable=yes\n")
    lines = [text.partition(", write ")[2] for text in recommended.values()]
    assert len(lines) == 2
    assert found(tmp_path, CEL, cel="\n".join(["[general]", "enable=yes", *lines])) == {}


def test_a_queue_log_that_is_switched_off_is_told(tmp_path: Path) -> None:
    assert found(tmp_path, QUEUE_LOG, logger="[general]\nqueue_log = no\n") == {"queue_log": QUEUE_LOG_IS_OFF}
    assert found(tmp_path, QUEUE_LOG, logger="[general]\nqueue_log = yes\n") == {}


def test_without_a_source_nobody_is_bothered(tmp_path: Path) -> None:
    assert found(tmp_path, None, cdr="[general]\nenable=no\n", cel="") == {}


@pytest.mark.parametrize(
    ("source", "files", "told"),
    [
        (CSV, {"cdr": "[general]\nenable=no\n"}, {"cdr"}),
        (CSV, {"cdr": "[general]\n[csv]\nloguniqueid=yes\nnewcdrcolumns=yes"}, {"unanswered"}),
        (CSV, {"cdr": GOOD["cdr.conf"].replace("[csv]", "batch=yes\n[csv]")}, {"batch"}),
        (CSV, {"cdr": "[general]\nunanswered=yes\n"}, {"loguniqueid", "newcdrcolumns"}),
        (CUSTOM, {"cdr": "[general]\nunanswered=yes\n"}, set()),
        (TABLE, {"cdr": "[general]\n"}, {"unanswered"}),
        (CEL, {"cdr": "", "cel": "[general]\n"}, {"cel"}),
        (CEL, {"cel": "[general]\nenable=yes\nevents=ANSWER,HANGUP\n"}, {"events", "apps"}),
        (CEL, {"cel": "[general]\nenable=yes\nevents=ALL\napps=all\n"}, {"apps"}),
    ],
)
def test_what_is_left_out_is_told_with_the_line_to_write(
    tmp_path: Path, source: dict[str, str], files: dict[str, str], told: set[str]
) -> None:
    findings = found(tmp_path, source, **files)
    assert findings.keys() == told
    assert all(", section [" in text and ", write " in text for text in findings.values())


def test_comments_sections_and_arrows_are_read_as_asterisk_does(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text(
        "; a = 1\n[General](+) ; here\nA => 1;2\nb = x\\;y\n;-- c = 1\nd = 1 --;\nno sign\n[general]\ne=5\n"
    )
    assert read_sections(tmp_path, "x.conf") == {"general": {"a": "1", "b": "x\\;y", "e": "5"}}


def test_included_files_count_and_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "cdr.d").mkdir()
    (tmp_path / "cdr.d" / "1.conf").write_text("enable = no\n")
    (tmp_path / "more.conf").write_text('#tryinclude "more.conf"\nunanswered=yes\n')
    findings = found(
        tmp_path, CSV, cdr='[general]\n#include <more.conf>\n#include "cdr.d/*.conf"\n#include none.conf\n'
    )
    assert findings == {"cdr": CDRS_ARE_OFF}


def test_a_directory_that_was_named_and_cannot_be_read_is_told(tmp_path: Path) -> None:
    settings = AsteriskSettings(
        name="main",
        username="u",
        config_directory=tmp_path / "none",
        sources=(SourceSettings.model_validate(CSV),),
    )
    assert "none cannot be read" in findings_of(settings)["config"]


def test_a_pbx_elsewhere_is_not_told_what_stands_here() -> None:
    source = SourceSettings.model_validate(CSV)
    assert findings_of(AsteriskSettings(name="main", username="u", host="10.0.0.7", sources=(source,))) == {}
