"""The direct uplink when the centre is away, refuses, or hangs."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from config.settings import CentralSettings
from sync.central.uplink import DirectUplink
from sync.errors import UplinkRefused, UplinkUnavailable
from sync.records import Receipt, Verdict
from tests.fakes_sync import a_batch, a_record
from tests.postgres import PostgresDatabase


def an_uplink(settings: CentralSettings) -> DirectUplink:
    return DirectUplink(settings, site="istanbul", agent_version="1.2.3")


@pytest.fixture
async def uplink(central_database: PostgresDatabase) -> AsyncIterator[DirectUplink]:
    await central_database.add_speaking_site("istanbul", "acme")
    uplink = an_uplink(central_database.settings(timeout_seconds=1))
    yield uplink
    await uplink.close()


async def count_calls(database: PostgresDatabase) -> int:
    [row] = await database.fetch("SELECT count(*) AS calls FROM call")
    return int(row["calls"])


def accepted(receipt: Receipt) -> int:
    return sum(verdict.verdict is Verdict.ACCEPTED for verdict in receipt.verdicts)


async def test_a_server_stopped_between_two_batches_is_found_again(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    await uplink.send(a_batch(a_record(1)))
    central_database.server.stop_hard()
    with pytest.raises(UplinkUnavailable):
        await uplink.send(a_batch(a_record(2)))
    central_database.server.start()

    receipt = await uplink.send(a_batch(a_record(2)))

    assert accepted(receipt) == 1
    assert await count_calls(central_database) == 2


async def test_a_server_stopped_in_the_middle_of_a_batch_loses_and_doubles_nothing(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    await hold_back(central_database)
    sending = asyncio.create_task(uplink.send(a_batch(*(a_record(number) for number in range(500)))))
    await until_held_back(central_database)
    central_database.server.stop_hard()
    with pytest.raises(UplinkUnavailable):
        await sending
    central_database.server.start()
    await central_database.execute("DROP TRIGGER hold ON call")

    assert await count_calls(central_database) == 0
    assert accepted(await uplink.send(a_batch(*(a_record(number) for number in range(500))))) == 500
    assert await count_calls(central_database) == 500


async def test_a_terminated_backend_is_replaced(central_database: PostgresDatabase) -> None:
    await central_database.add_speaking_site("istanbul", "acme")
    uplink = an_uplink(central_database.settings(timeout_seconds=30))
    await uplink.send(a_batch(a_record(1)))
    await central_database.fetch(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'edge-agent istanbul'"
    )
    try:
        receipt = await uplink.send(a_batch(a_record(2)))
    except UplinkUnavailable:  # unless the end of the connection was seen before it was used
        receipt = await uplink.send(a_batch(a_record(2)))
    await uplink.close()

    assert accepted(receipt) == 1


async def test_a_server_that_hangs_is_given_up_in_time_and_used_again_when_it_wakes(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    await uplink.send(a_batch(a_record(1)))
    central_database.server.freeze()
    started = time.monotonic()
    for _ in range(2):  # once on the open connection, once while making a new one
        with pytest.raises(UplinkUnavailable, match="did not answer within 1 s"):
            await uplink.send(a_batch(a_record(2)))
    assert time.monotonic() - started < 4
    central_database.server.thaw()

    receipt = await uplink.send(a_batch(a_record(2)))

    assert receipt.verdicts[0].verdict in {Verdict.ACCEPTED, Verdict.SUPERSEDED}
    assert await count_calls(central_database) == 2


async def test_a_cancelled_send_leaves_an_uplink_that_works(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    await hold_back(central_database)
    sending = asyncio.create_task(uplink.send(a_batch(a_record(1))))
    await until_held_back(central_database)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await central_database.execute("DROP TRIGGER hold ON call")

    assert accepted(await uplink.send(a_batch(a_record(1)))) == 1


async def test_a_table_locked_by_others_is_an_outage_and_not_a_fault_of_the_records(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    async with central_database.connection() as other, other.transaction():
        await other.execute("LOCK TABLE call")
        with pytest.raises(UplinkUnavailable):
            await uplink.send(a_batch(a_record(1)))

    assert accepted(await uplink.send(a_batch(a_record(1)))) == 1


async def test_a_read_only_centre_is_an_outage(uplink: DirectUplink, central_database: PostgresDatabase) -> None:
    await central_database.execute(f"ALTER DATABASE {central_database.name} SET default_transaction_read_only = on")

    with pytest.raises(UplinkUnavailable, match="read only sql transaction, 25006"):
        await uplink.send(a_batch(a_record(1)))


async def test_a_wrong_password_is_refused_and_told_without_it(central_database: PostgresDatabase) -> None:
    uplink = an_uplink(central_database.settings(password=SecretStr("hunter2")))

    with pytest.raises(UplinkRefused, match="refuses the log-in; check user name, password") as caught:
        await uplink.send(a_batch(a_record()))

    assert_tells_no_secret(caught.value, "hunter2")


async def test_a_password_changed_in_its_file_is_used_at_the_next_try(
    central_database: PostgresDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong\n")
    await central_database.add_speaking_site("istanbul", "acme")
    uplink = an_uplink(central_database.settings(password=None, password_file=file))
    with pytest.raises(UplinkRefused):
        await uplink.send(a_batch(a_record()))
    file.write_text(central_database.server.password + "\n")

    assert accepted(await uplink.send(a_batch(a_record()))) == 1
    await uplink.close()


async def test_a_missing_password_file_is_told_by_name(central_database: PostgresDatabase, tmp_path: Path) -> None:
    uplink = an_uplink(central_database.settings(password=None, password_file=tmp_path / "password"))

    with pytest.raises(UplinkRefused, match=r"cannot read the password file .*password: No such file"):
        await uplink.send(a_batch(a_record()))


async def test_a_missing_database_is_refused(central_database: PostgresDatabase) -> None:
    uplink = an_uplink(central_database.settings(url=central_database.server.url("nowhere")))

    with pytest.raises(UplinkRefused, match="/nowhere: there is no such database; create it"):
        await uplink.send(a_batch(a_record()))


async def test_an_unreachable_server_is_an_outage(central_database: PostgresDatabase) -> None:
    uplink = an_uplink(central_database.settings(url="postgresql://site@127.0.0.1:1/calls"))

    with pytest.raises(UplinkUnavailable, match=r"127\.0\.0\.1:1/calls cannot be reached: Connection refused"):
        await uplink.send(a_batch(a_record()))


async def test_a_name_that_does_not_resolve_is_an_outage(central_database: PostgresDatabase) -> None:
    uplink = an_uplink(central_database.settings(url="postgresql://site@centre.invalid/calls"))

    with pytest.raises(UplinkUnavailable, match=r"centre\.invalid/calls cannot be reached: its name is not known"):
        await uplink.send(a_batch(a_record()))


async def test_tls_is_asked_for_if_a_ca_is_named_and_its_absence_is_refused(
    central_database: PostgresDatabase,
) -> None:
    url = central_database.server.url(central_database.name) + "?sslmode=verify-full"
    uplink = an_uplink(central_database.settings(url=url))

    with pytest.raises(UplinkRefused, match="offers no TLS; switch it on there, or add"):
        await uplink.send(a_batch(a_record()))


async def test_an_empty_database_is_refused_with_the_command_to_run(empty_database: PostgresDatabase) -> None:
    uplink = an_uplink(empty_database.settings())

    with pytest.raises(UplinkRefused, match="has no call tables yet; run `edge-hub migrate`"):
        await uplink.send(a_batch(a_record()))


async def test_a_newer_schema_is_refused(central_database: PostgresDatabase) -> None:
    await central_database.execute(
        "UPDATE alembic_version SET version_num = '9999'; UPDATE centre SET compatible_from = '9999'"
    )

    with pytest.raises(UplinkRefused, match="newer than this program knows"):
        await an_uplink(central_database.settings()).send(a_batch(a_record()))


async def test_a_newer_but_compatible_schema_is_no_trouble(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    await central_database.execute("UPDATE alembic_version SET version_num = '9999'")

    assert accepted(await uplink.send(a_batch(a_record()))) == 1


async def test_a_user_without_rights_on_the_tables_is_refused_and_told_how_to_get_one_that_has_them(
    central_database: PostgresDatabase,
) -> None:
    role = f"site_{central_database.name}"
    await central_database.add_speaking_site("istanbul", "acme")
    await central_database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    server = central_database.server
    uplink = an_uplink(
        central_database.settings(
            url=f"postgresql://{role}@{server.host}:{server.port}/{central_database.name}", password=SecretStr("secret")
        )
    )
    with pytest.raises(UplinkRefused, match="lacks rights; `edge-hub sites add --direct` makes one that has them"):
        await uplink.send(a_batch(a_record()))
    await uplink.close()


async def test_a_column_taken_away_is_refused_and_condemns_no_record(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    await uplink.send(a_batch(a_record(1)))
    await central_database.execute("ALTER TABLE call DROP COLUMN queue")

    with pytest.raises(UplinkRefused, match="not those this version writes; run `edge-hub migrate`"):
        await uplink.send(a_batch(a_record(2)))


async def test_a_column_changed_under_an_open_connection_is_no_trouble(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    await uplink.send(a_batch(a_record(1)))
    await central_database.execute("ALTER TABLE call ALTER COLUMN trace_id TYPE text")
    try:
        await uplink.send(a_batch(a_record(2)))
    except UplinkUnavailable:
        await uplink.send(a_batch(a_record(2)))

    assert await count_calls(central_database) == 2


async def test_two_batches_are_copied_before_either_has_its_turn_at_the_sites_row(
    uplink: DirectUplink, central_database: PostgresDatabase
) -> None:
    async with central_database.connection() as other, other.transaction():
        await other.execute("SELECT FROM site WHERE name = 'istanbul' FOR UPDATE")
        sending = [asyncio.create_task(uplink.send(a_batch(a_record(number)))) for number in range(2)]
        while await backends(central_database, "wait_event_type = 'Lock' AND query LIKE '%UPDATE site%'") < 2:
            pass

    assert [accepted(await one) for one in sending] == [1, 1]
    assert await count_calls(central_database) == 2


async def test_a_second_connection_is_given_back_when_it_is_not_needed_any_more(
    uplink: DirectUplink, central_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.central.uplink._SPARE_SECONDS", 0.01)
    await asyncio.gather(*(uplink.send(a_batch(a_record(number))) for number in range(3)))
    while await backends(central_database) > 1:
        pass

    receipts = await asyncio.gather(*(uplink.send(a_batch(a_record(number))) for number in range(3, 6)))

    assert sum(map(accepted, receipts)) == 3
    assert await count_calls(central_database) == 6


async def test_closing_twice_is_harmless(uplink: DirectUplink) -> None:
    await uplink.send(a_batch(a_record()))

    await uplink.close()
    await uplink.close()


async def backends(database: PostgresDatabase, which: str = "true") -> int:
    [row] = await database.fetch(
        f"SELECT count(*) AS found FROM pg_stat_activity WHERE application_name = 'edge-agent istanbul' AND {which}"
    )
    return int(row["found"])


async def hold_back(database: PostgresDatabase) -> None:
    await database.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;"
        "CREATE TRIGGER hold BEFORE INSERT ON call FOR EACH STATEMENT EXECUTE FUNCTION hold()"
    )


async def until_held_back(database: PostgresDatabase) -> None:
    async with database.connection() as connection:
        while not await connection.fetch(
            "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        ):
            pass


def assert_tells_no_secret(exc: BaseException, secret: str) -> None:
    link: BaseException | None = exc
    while link is not None:
        assert secret not in f"{link!r} {link}"
        assert link.__suppress_context__ or link.__context__ is None
        link = link.__cause__
