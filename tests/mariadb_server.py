"""A real MariaDB for tests, from Debian's mariadb-server-core: one server per session, `asteriskcdrdb` new per test.

Fixture: `mariadb`, with the tables of FreePBX, a user who writes as Asterisk does and one who may only read, made by
the very SQL that docs/asterisk.md tells technicians. It runs as nobody, from a directory of its own; no service is
touched.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pydantic import SecretStr

from agent.sources.mariadb import TableAddress
from tests.pbx.waiting import wait_until

START_SECONDS = 30.0
DATABASE = "asteriskcdrdb"
READER = "sentiric"
READER_PASSWORD = "a-long-password"  # as in docs/asterisk.md
WRITER = "freepbxuser"
WRITER_PASSWORD = "yazar"
_BINARY = Path("/usr/sbin/mariadbd")
_SHARE = Path("/usr/share/mysql")
_DOCS = Path(__file__).parents[1] / "docs" / "asterisk.md"
_SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")

# As FreePBX 16 makes them.
CDR_TABLE = """CREATE TABLE cdr (
  calldate datetime NOT NULL DEFAULT '0000-00-00 00:00:00', clid varchar(80) NOT NULL DEFAULT '',
  src varchar(80) NOT NULL DEFAULT '', dst varchar(80) NOT NULL DEFAULT '', dcontext varchar(80) NOT NULL DEFAULT '',
  channel varchar(80) NOT NULL DEFAULT '', dstchannel varchar(80) NOT NULL DEFAULT '',
  lastapp varchar(80) NOT NULL DEFAULT '', lastdata varchar(80) NOT NULL DEFAULT '',
  duration int(11) NOT NULL DEFAULT 0, billsec int(11) NOT NULL DEFAULT 0,
  disposition varchar(45) NOT NULL DEFAULT '', amaflags int(11) NOT NULL DEFAULT 0,
  accountcode varchar(20) NOT NULL DEFAULT '', uniqueid varchar(32) NOT NULL DEFAULT '',
  userfield varchar(255) NOT NULL DEFAULT '', did varchar(50) NOT NULL DEFAULT '',
  recordingfile varchar(255) NOT NULL DEFAULT '', cnum varchar(80) NOT NULL DEFAULT '',
  cnam varchar(80) NOT NULL DEFAULT '', outbound_cnum varchar(80) NOT NULL DEFAULT '',
  outbound_cnam varchar(80) NOT NULL DEFAULT '', dst_cnam varchar(80) NOT NULL DEFAULT '',
  linkedid varchar(32) NOT NULL DEFAULT '', peeraccount varchar(80) NOT NULL DEFAULT '',
  sequence int(11) NOT NULL DEFAULT 0,
  KEY calldate (calldate), KEY dst (dst), KEY accountcode (accountcode), KEY uniqueid (uniqueid), KEY did (did)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""
CEL_TABLE = """CREATE TABLE cel (
  id int(11) NOT NULL AUTO_INCREMENT, eventtype varchar(30) NOT NULL, eventtime datetime NOT NULL,
  cid_name varchar(80) NOT NULL, cid_num varchar(80) NOT NULL, cid_ani varchar(80) NOT NULL,
  cid_rdnis varchar(80) NOT NULL, cid_dnid varchar(80) NOT NULL, exten varchar(80) NOT NULL,
  context varchar(80) NOT NULL, channame varchar(80) NOT NULL, appname varchar(80) NOT NULL,
  appdata varchar(255) NOT NULL, amaflags int(11) NOT NULL, accountcode varchar(20) NOT NULL,
  uniqueid varchar(32) NOT NULL, linkedid varchar(32) NOT NULL, peer varchar(80) NOT NULL,
  userdeftype varchar(255) NOT NULL, extra varchar(512) NOT NULL,
  PRIMARY KEY (id), KEY uniqueid_index (uniqueid), KEY linkedid_index (linkedid), KEY context_index (context)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""


class MariaDb:
    """One server. Stopped and started again, it has what it had."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        # Not pytest's directory: a Unix socket's path must be short, and nobody has to be able to go there.
        self.directory = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self.directory.chmod(0o755)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._install()

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def address(self, table: str = "cdr", **changes: Any) -> TableAddress:  # Any: whatever fields it has
        """The table, for the user who may only read."""
        values: dict[str, Any] = {"host": self.host, "port": self.port, "database": DATABASE, "table": table}
        reader = {"user": READER, "password": SecretStr(READER_PASSWORD)}
        return TableAddress(**(values | reader | changes))

    def start(self, *options: str) -> None:
        """Start it if it is not running, and wait until it answers. The data of tests need not reach the disk."""
        if self._process is not None:
            return
        quick = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--performance-schema=0")
        listen = (f"--socket={self.directory / 's'}", f"--port={self.port}", f"--bind-address={self.host}")
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([*self._command(), *quick, *listen, *options], stdout=log, stderr=log)
        wait_until(self._answers, what="MariaDB answering", seconds=START_SECONDS)

    def stop(self) -> None:
        """As the system stops it: what was written stays."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            self._process.wait(START_SECONDS)
            self._process = None

    def restart(self, *options: str) -> None:
        """Stop it and start it."""
        self.stop()
        self.start(*options)

    def freeze(self) -> None:
        """It holds its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The opposite of `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def connect(self, **changes: Any) -> "pymysql.connections.Connection[Any]":  # Any: rows
        """A connection of the test's own, as its administrator."""
        values: dict[str, Any] = {"host": self.host, "port": self.port, "user": "root", "autocommit": True} | changes
        return pymysql.connect(**values)

    def execute(self, *statements: str, database: str | None = DATABASE) -> list[tuple[Any, ...]]:  # Any: values
        """Run some statements as the administrator; the rows of the last."""
        with self.connect(database=database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:  # Any: values
        """Add rows that have the same columns."""
        names = ", ".join(rows[0])
        places = ", ".join(["%s"] * len(rows[0]))
        with self.connect(database=DATABASE) as connection, connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", [[*row.values()] for row in rows])

    def renew(self) -> None:
        """Empty tables, and the two users."""
        self.execute(
            f"DROP DATABASE IF EXISTS {DATABASE}",
            f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4",
            f"USE {DATABASE}",
            CDR_TABLE,
            CEL_TABLE,
            f"DROP USER IF EXISTS '{READER}'@'127.0.0.1'",
            *documented_grants(),
            f"CREATE OR REPLACE USER '{WRITER}'@'127.0.0.1' IDENTIFIED BY '{WRITER_PASSWORD}'",
            f"GRANT ALL ON {DATABASE}.* TO '{WRITER}'@'127.0.0.1'",
            database=None,
        )

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _install(self) -> None:
        own = (self.directory / "data", self.directory / "tmp")
        for directory in own:
            directory.mkdir()
        if os.geteuid() == 0:
            for directory in (self.directory, *own):
                shutil.chown(directory, "nobody")
        system = "\n".join((_SHARE / name).read_text(encoding="utf-8") for name in _SYSTEM_TABLES)
        with (self.directory / "log").open("ab") as log:
            subprocess.run(
                [*self._command(), "--bootstrap"],
                input=f"CREATE DATABASE mysql;\nUSE mysql;\n{system}".encode(),
                stdout=log,
                stderr=log,
                check=True,
                timeout=120,
            )

    def _command(self) -> list[str]:
        user = ["--user=nobody"] if os.geteuid() == 0 else []
        # One that starts removes every temporary table it finds, also those of another that runs beside it.
        places = (f"--datadir={self.directory / 'data'}", f"--tmpdir={self.directory / 'tmp'}")
        return [str(_BINARY), "--no-defaults", *user, *places, "--innodb-log-file-size=8M", "--skip-name-resolve"]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            last_words = (self.directory / "log").read_text(errors="replace").strip()[-2000:]
            raise AssertionError(f"MariaDB ended while it started:\n{last_words}")
        try:
            self.connect().close()
        except pymysql.OperationalError:
            return False
        return True


def documented_grants() -> list[str]:
    """What docs/asterisk.md tells to say for the user who may only read."""
    (block,) = re.findall(r"```sql\n(.*?)```", _DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return [statement.strip() for statement in block.split(";") if statement.strip().startswith(("CREATE", "GRANT"))]


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDb]:
    """The session's server, in whatever state the last test left it."""
    if not _BINARY.exists():
        reason = "no MariaDB; install Debian's mariadb-server-core"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    server = MariaDb()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def mariadb(mariadb_server: MariaDb) -> Iterator[MariaDb]:
    """A running server with empty tables."""
    mariadb_server.start()
    mariadb_server.renew()
    yield mariadb_server
    if mariadb_server.is_running:
        mariadb_server.thaw()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
