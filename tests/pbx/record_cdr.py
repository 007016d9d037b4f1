"""Records the CDR files that a real Asterisk writes: python -m tests.pbx.record_cdr [town] [stage]

NAME.master.csv is `cdr_csv` with every column, NAME.custom.csv is `cdr_custom` with the rig's columns, NAME.json the
truth of the same calls. Asterisk's clock is UTC.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

from tests.pbx.asterisk import Asterisk
from tests.pbx.mix import SCENARIOS as MIX
from tests.pbx.mix import Plan, place
from tests.pbx.record import WIRE
from tests.pbx.stage.scenarios import SCENARIOS
from tests.pbx.stage.theatre import Theatre
from tests.pbx.stage.truth import dump_truths
from tests.pbx.truth import true_calls

DIRECTORY = WIRE / "cdr"
_CDR_CSV = "usegmtime=yes\nloguniqueid=yes\nloguserfield=yes\nnewcdrcolumns=yes\n"


def main(wanted: list[str]) -> int:
    DIRECTORY.mkdir(exist_ok=True)
    for name, record in (("town", _town), ("stage", _stage)):
        if not wanted or name in wanted:
            record(DIRECTORY / name)
    return 0


def _town(path: Path) -> None:
    """Every kind of call of the town, tenants in turn."""
    asterisk = Asterisk()
    _with_cdr_csv(asterisk)
    with asterisk:
        asterisk.cli("module load cdr_csv.so")
        plan = Plan(seed=33)
        planned = plan.mixed(len(MIX))
        place(asterisk, planned, over=timedelta(seconds=20)).wait(seconds=90)
        scenarios = {one.intention.call: one.intention.scenario for one in planned}
        calls = true_calls(asterisk.cel_path, asterisk.cdr_path)
        truth = [call.to_json() | {"scenario": scenarios.get(call.intention or "")} for call in calls]
        path.with_suffix(".json").write_text(json.dumps(truth, ensure_ascii=False, indent=2) + "\n")
        _keep(asterisk, path)


def _stage(path: Path) -> None:
    """Transfers, parking, pickups, conferences."""
    scenarios = list(SCENARIOS.values())
    theatre = Theatre(scenarios)
    _with_cdr_csv(theatre.asterisk)
    with theatre:
        theatre.asterisk.cli("module load cdr_csv.so")
        played = [one for one in theatre.play(scenarios) if one.failure is None]
        truths = {one.scenario.name: json.loads(dump_truths(one.calls)) for one in played}
        path.with_suffix(".json").write_text(json.dumps(truths, ensure_ascii=False, indent=1) + "\n")
        _keep(theatre.asterisk, path)


def _with_cdr_csv(asterisk: Asterisk) -> None:
    file = asterisk.home / "etc/cdr.conf"
    file.write_text(file.read_text().replace("usegmtime=yes\n", _CDR_CSV))
    (asterisk.home / "log/cdr-csv").mkdir()


def _keep(asterisk: Asterisk, path: Path) -> None:
    path.with_suffix(".master.csv").write_bytes((asterisk.home / "log/cdr-csv/Master.csv").read_bytes())
    path.with_suffix(".custom.csv").write_bytes(asterisk.cdr_path.read_bytes())
    print(path.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
