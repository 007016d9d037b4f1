"""Records scenarios one at a time: python -m tests.pbx.stage.record [--asterisk VERSION] [NAME …]

Beside each NAME.ami (the bytes of the classes the product asks for) stand NAME.cel.csv, Asterisk's channel event log of
the same, NAME.cdr.csv, its CDRs, and NAME.json, the truth of its calls; of a call in a queue also NAME.queue_log.
"""

import argparse
import sys
from pathlib import Path

from tests.pbx.asterisk import VERSIONS
from tests.pbx.configuration import CDR_COLUMNS, CEL_COLUMNS
from tests.pbx.record import WIRE, Recorder
from tests.pbx.stage.scenarios import SCENARIOS
from tests.pbx.stage.theatre import Theatre
from tests.pbx.stage.truth import dump_truths

READ = "system,call,agent,dialplan,user"
"""The classes the product asks for by default, so that a capture holds what it is told and no more."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asterisk", type=int, default=VERSIONS[0], choices=VERSIONS)
    parser.add_argument("--to", type=Path, metavar="DIR", help="instead of tests/wire/stage/VERSION")
    parser.add_argument("names", nargs="*", metavar="NAME")
    asked = parser.parse_args(arguments)
    scenarios = [SCENARIOS[name] for name in asked.names or SCENARIOS]
    directory: Path = asked.to or WIRE / "stage" / str(asked.asterisk)
    directory.mkdir(parents=True, exist_ok=True)
    failed = 0
    with Theatre(scenarios, version=asked.asterisk, read=READ) as theatre:
        for scenario in scenarios:
            if asked.asterisk not in scenario.skips:
                failed += not _record(theatre, scenario.name, directory)
    return 1 if failed else 0


def _record(theatre: Theatre, name: str, directory: Path) -> bool:
    """Nothing is written of a scenario that could not be played to its end."""
    theatre.asterisk.truncate_account()
    with Recorder(theatre.asterisk) as recorder:
        (played,) = theatre.play([SCENARIOS[name]])
        begun = recorder.received.count(b"Event: Newchannel\r\n")
        recorder.wait_for(b"Event: Hangup\r\n", times=begun)
    if played.failure:
        print(f"{name}: {played.failure}", file=sys.stderr)
        return False
    (directory / f"{name}.ami").write_bytes(recorder.received)
    header = ",".join(CEL_COLUMNS).encode() + b"\n"
    (directory / f"{name}.cel.csv").write_bytes(header + theatre.asterisk.cel_path.read_bytes())
    if queue_log := theatre.asterisk.queue_log_path.read_bytes():
        (directory / f"{name}.queue_log").write_bytes(queue_log)
    header = ",".join(CDR_COLUMNS).encode() + b"\n"
    (directory / f"{name}.cdr.csv").write_bytes(header + theatre.asterisk.cdr_path.read_bytes())
    (directory / f"{name}.json").write_text(dump_truths(played.calls), encoding="utf-8")
    print(name, flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
