"""An Asterisk that writes CDRs and CEL into MariaDB as FreePBX's does: res_odbc, cdr_adaptive_odbc, cel_odbc."""

from collections.abc import Mapping

from tests.mariadb_server import DATABASE, WRITER, WRITER_PASSWORD, MariaDb
from tests.pbx.asterisk import INSTANCES, Asterisk, RigUnavailable
from tests.pbx.configuration import Options

_DRIVER = "usr/lib/x86_64-linux-gnu/odbc/libmaodbc.so"


def asterisk_with_tables(mariadb: MariaDb, *, more: Mapping[str, str] | None = None) -> Asterisk:
    """To be started with `environment_of` it, then `load_back_ends`. RigUnavailable if its root has no driver.

    `more`: configuration of further back ends, by file name.
    """
    asterisk = Asterisk(options=Options(appended={**_configuration(mariadb), **(more or {})}))
    if not (asterisk.root / _DRIVER).exists():
        asterisk.close()
        raise RigUnavailable(f"no ODBC driver in {asterisk.root}; build it anew with scripts/asterisk-root")
    return asterisk


def environment_of(asterisk: Asterisk) -> dict[str, str]:
    """What has to be set while it starts: unixODBC looks there for its file, which else all in the root would share."""
    return {"ODBCINI": f"/{INSTANCES}/{asterisk.name}/etc/odbc.ini"}


def load_back_ends(asterisk: Asterisk, *more: str) -> None:
    """By itself the rig loads none but its own."""
    for module in ("cdr_adaptive_odbc", "cel_odbc", *more):
        said = asterisk.cli(f"module load {module}.so")
        assert "Loaded" in said, said


def _configuration(mariadb: MariaDb) -> dict[str, str]:
    return {
        "odbc.ini": (
            f"[MySQL-asteriskcdrdb]\nDriver=/{_DRIVER}\nServer={mariadb.host}\nPort={mariadb.port}\n"
            f"Database={DATABASE}\nOption=3\nCharset=utf8\n"
        ),
        "res_odbc.conf": (
            f"[{DATABASE}]\nenabled=>yes\ndsn=>MySQL-asteriskcdrdb\npre-connect=>yes\nmax_connections=>5\n"
            f"username=>{WRITER}\npassword=>{WRITER_PASSWORD}\ndatabase=>{DATABASE}\nnegative_connection_cache=>0\n"
        ),
        "cdr_adaptive_odbc.conf": (
            f"[{DATABASE}]\nconnection={DATABASE}\nloguniqueid=yes\ntable=cdr\nalias start => calldate\n"
        ),
        "cel_odbc.conf": f"[cel]\nconnection={DATABASE}\nloguniqueid=yes\ntable=cel\n",
    }
