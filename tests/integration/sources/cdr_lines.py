"""Lines of Master.csv for tests."""

import csv
import io
from datetime import datetime, timedelta

START = datetime(2026, 11, 22, 9, 0, 0)  # noqa: DTZ001 - as the file has it, in UTC


def cdr(number: int, *, after: timedelta = timedelta(), seconds: int = 10, linked: str | None = None) -> str:
    """The CDR of call `number`, which 101 made to 102, so long after START."""
    start = START + after
    answer, end = start + timedelta(seconds=1), start + timedelta(seconds=seconds)
    native = f"1795340000.{number}"
    fields = [
        "", "101", "102", "phones", '"Ayşe" <101>', f"PJSIP/101-{number:08x}", f"PJSIP/102-{number:08x}", "Dial",
        "PJSIP/102", f"{start:%F %T}", f"{answer:%F %T}", f"{end:%F %T}", str(seconds), str(seconds - 1), "ANSWERED",
        "DOCUMENTATION", native, "", "", linked or native, str(number),
    ]  # fmt: skip
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(fields)
    return text.getvalue()


def shifted(text: str, by: timedelta) -> str:
    """Lines of Master.csv as if they had been written at another time."""
    told = io.StringIO()
    writer = csv.writer(told, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in csv.reader(io.StringIO(text)):
        for column in (9, 10, 11):
            if row[column]:
                row[column] = f"{datetime.fromisoformat(row[column]) + by:%F %T}"
        writer.writerow(row)
    return told.getvalue()
