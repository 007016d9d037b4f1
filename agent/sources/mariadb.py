"""A connection to a PBX's MariaDB or MySQL that only reads, gives up in time, and says in a sentence what fails."""

import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pymysql
from pydantic import SecretStr
from pymysql.connections import Connection
from pymysql.constants import CR, ER
from pymysql.converters import encoders

from agent.errors import AgentError
from config.credentials import read_secret
from config.files import Unreadable
from config.settings import SourceSettings

CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 60
# Values come as the bytes that are stored, and TIMESTAMP in UTC. MariaDB then also ends what we no longer wait for.
_SESSION: Final = (
    "SET SESSION character_set_results = NULL, time_zone = '+00:00', sql_mode = '' "
    f"/*M!100101 , max_statement_time = {READ_SECONDS} */"
)
_NO_CONVERSIONS: Final[Any] = dict(encoders)  # Any: the library's own types do not fit each other
_BEGIN: Final = "START TRANSACTION READ ONLY"
_STATEMENT_TIMEOUT: Final = 1969
# The library trusts the server, and at what none would say it fails by whatever comes of it.
_CONFUSED: Final = (AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError, struct.error)


class TableTrouble(AgentError):
    """A table cannot be read now; the text says why and what to do. Try again after a while."""


class ConnectionGone(TableTrouble):
    """The server closed the connection, as it does with idle ones, or does not answer: a new one may do."""


@dataclass(frozen=True, slots=True)
class TableAddress:
    """Where a table is and who reads it."""

    host: str | None
    user: str
    database: str
    table: str
    port: int = 3306
    socket: Path | None = None  # instead of host and port
    password: SecretStr | None = None
    password_file: Path | None = None  # goes before the password; read at each connection
    tls: bool = False  # encrypted, and the server has to show a certificate that is trusted
    tls_ca_file: Path | None = None  # None: the machine's authorities

    @property
    def server(self) -> str:
        """For people."""
        return str(self.socket) if self.socket is not None else f"{self.host}:{self.port}"

    def read_password(self) -> str:
        """As it is now; empty if there is none. Raises TableTrouble."""
        if self.password_file is not None:
            try:
                return read_secret(self.password_file)
            except Unreadable as exc:
                raise TableTrouble(f"the password for {self.server}: {exc}") from None
        return self.password.get_secret_value() if self.password is not None else ""


def address_of(source: SourceSettings) -> TableAddress:
    """What the settings say of a table in MariaDB."""
    server = source.server
    assert server is not None  # noqa: S101 - the settings say that such a source has one
    return TableAddress(
        host=server.host,
        port=server.port,
        user=server.user,
        database=server.database,
        table=source.table_name,
        socket=source.socket,
        password=source.password,
        password_file=source.password_file,
        tls=source.uses_tls,
        tls_ca_file=source.tls_ca_file,
    )


class ReadOnly:
    """An open connection. Every failure is a TableTrouble; then it is of no more use."""

    def __init__(self, address: TableAddress) -> None:
        self._address = address
        password = address.read_password()
        with self._telling():
            if address.socket is not None and not address.socket.is_socket():
                raise TableTrouble(_AWAY.format(server=address.server, said="there is no socket"))
            self._connection: Connection[pymysql.cursors.Cursor] = pymysql.connect(
                host=address.host,
                port=address.port,
                unix_socket=str(address.socket) if address.socket is not None else None,
                user=address.user,
                password=password,
                database=address.database,
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS + 5,
                write_timeout=CONNECT_SECONDS,
                charset="utf8",  # of what we say; older servers know no utf8mb4
                use_unicode=False,
                conv=_NO_CONVERSIONS,
                autocommit=True,
                # Not "if the server can": old servers can only what nobody should, and then there is no connection.
                ssl=self._tls() if address.tls else None,
                ssl_disabled=not address.tls,
            )
            self.rows(_SESSION)

    def close(self) -> None:
        """Let go of it; never fails."""
        with self._telling(quietly=True):
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is read within is of one moment, where the table's engine can do that (InnoDB, not MyISAM)."""
        self._begin()
        yield
        # What was read is read; that the connection is gone shows next time.
        with self._telling(quietly=True), self._connection.cursor() as cursor:
            cursor.execute("COMMIT")

    def rows(self, query: str, *values: str | int) -> list[tuple[bytes | None, ...]]:
        """All rows of a query; its texts as stored."""
        with self._telling(), self._connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def _begin(self) -> None:
        with self._telling(), self._connection.cursor() as cursor:
            try:
                cursor.execute(_BEGIN)
            except pymysql.err.ProgrammingError:  # MariaDB 5.5, as in Issabel 4
                cursor.execute("START TRANSACTION")

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._address.tls_ca_file)
        except OSError as exc:
            raise TableTrouble(f"{self._address.tls_ca_file} is no file of certificates: {exc}") from None

    @contextmanager
    def _telling(self, *, quietly: bool = False) -> Iterator[None]:
        try:
            yield
        except TableTrouble:
            raise
        # RuntimeError: a way to log in that needs another library.
        except (pymysql.Error, OSError, RuntimeError) as exc:
            if not quietly:
                # What the library knows of the connection stays behind.
                raise _trouble(exc, self._address) from None
        except _CONFUSED as exc:
            if not quietly:
                raise TableTrouble(
                    f"what answers at {self._address.server} does not speak as MariaDB does ({type(exc).__name__})"
                ) from None


def _trouble(exc: Exception, at: TableAddress) -> TableTrouble:
    code = exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0
    is_gone = code in _GONE or isinstance(exc, pymysql.err.InterfaceError)
    return (ConnectionGone if is_gone else TableTrouble)(_sentence(exc, CR.CR_SERVER_LOST if is_gone else code, at))


def _sentence(exc: Exception, code: int, at: TableAddress) -> str:
    said = str(exc.args[-1]) if exc.args else type(exc).__name__
    cause = getattr(exc, "original_exception", None)
    if isinstance(cause, ssl.SSLError):
        return f"{at.server} shows no certificate that is trusted ({cause.reason}); name its authority's file"
    if isinstance(cause, TimeoutError):
        said = "no answer in time"
    elif isinstance(cause, OSError):
        said = cause.strerror or said
    table = f"{at.database}.{at.table}"
    template = _SENTENCES.get(code, "{table} at {server} cannot be read: {said}")
    return template.format(server=at.server, user=at.user, database=at.database, table=table, said=said)


_GONE: Final = frozenset({CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST})
_AWAY: Final = "no MariaDB answers at {server} ({said}); is it running, and does it listen there?"
_NO_RIGHT: Final = "the user {user} may not read {table} at {server}; GRANT SELECT ON {table} to it"
_NOBODY: Final = "MariaDB at {server} lets nobody in from this machine: {said}"
_FULL: Final = "MariaDB at {server} has no connection left (max_connections)"
_SENTENCES: Final = {
    CR.CR_CONN_HOST_ERROR: _AWAY,
    CR.CR_CONNECTION_ERROR: _AWAY,
    CR.CR_SSL_CONNECTION_ERROR: "MariaDB at {server} offers no TLS; configure ssl_cert and ssl_key there",
    CR.CR_SERVER_LOST: "MariaDB at {server} closed the connection or does not answer any more",
    ER.ACCESS_DENIED_ERROR: (
        "MariaDB at {server} denies access to the user {user}: a wrong password, or no such user from this machine"
    ),
    ER.DBACCESS_DENIED_ERROR: _NO_RIGHT,
    ER.TABLEACCESS_DENIED_ERROR: _NO_RIGHT,
    ER.COLUMNACCESS_DENIED_ERROR: _NO_RIGHT,
    ER.BAD_DB_ERROR: "MariaDB at {server} has no database {database}",
    ER.NO_SUCH_TABLE: "MariaDB at {server} has no table {table}",
    ER.HOST_NOT_PRIVILEGED: _NOBODY,
    ER.HOST_IS_BLOCKED: _NOBODY,
    ER.CON_COUNT_ERROR: _FULL,
    ER.TOO_MANY_USER_CONNECTIONS: _FULL,
    _STATEMENT_TIMEOUT: "{table} at {server} is too slow to be read; has it an index on its time?",
}
