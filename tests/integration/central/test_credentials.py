"""Enrolment codes and credentials at a real centre, used as a hub uses them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sync.central import sites
from sync.central.credentials import hash_of_code, make_code
from sync.central.database import CentralDatabase
from sync.errors import SiteRefused
from sync.records import Greeting
from tests.postgres import PostgresDatabase


@pytest.fixture
async def central(central_database: PostgresDatabase) -> AsyncIterator[CentralDatabase]:
    await central_database.add_site("istanbul", "acme")
    await central_database.add_site("ankara", "globex")
    central = CentralDatabase(await central_database.add_hub_login(), application_name="test")
    yield central
    await central.close()


async def code_for(database: PostgresDatabase, site: str, hours: float = 24) -> str:
    async with database.connection() as owner:
        return await sites.new_code(owner, site, who="test", hours=hours)


async def assert_refused(code: str, attempt: object) -> str:
    with pytest.raises(SiteRefused) as caught:
        await attempt  # type: ignore[misc]  # any coroutine
    assert caught.value.code == code
    return str(caught.value)


async def test_a_code_gets_its_site_a_credential_once(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    code = await code_for(central_database, "istanbul")

    enrolled = await central.enrol(code, site=None, host="pbx-1")

    assert (enrolled.site, enrolled.tenants) == ("istanbul", ("acme",))
    assert (await central.verify(enrolled.credential)).site == "istanbul"
    assert "`edge-hub sites code istanbul`" in await assert_refused(
        "code_used", central.enrol(code, site=None, host="x")
    )
    secret = enrolled.credential.partition(".")[2]
    assert secret not in repr(enrolled)
    for table in ("credential", "enrolment_code", "audit", "site"):
        kept = str(await central_database.fetch(f"SELECT {table}::text FROM {table}"))
        assert secret not in kept
        assert code not in kept
        assert code.replace("-", "") not in kept


async def test_a_code_may_be_typed_carelessly(central: CentralDatabase, central_database: PostgresDatabase) -> None:
    code = await code_for(central_database, "istanbul")
    typed = code.lower().replace("-", " ").replace("1", "l").replace("0", "o")

    assert (await central.enrol(f" {typed}\n", site="istanbul", host="x")).site == "istanbul"


async def test_a_code_that_is_wrong_expired_void_or_for_another_site_gets_nothing(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    first = await code_for(central_database, "istanbul")
    code = await code_for(central_database, "istanbul")

    for wrong in (make_code(), first, "", "0" * 16, "x" * 10_000, "nul\0", "half \ud800", "' OR true --"):
        await assert_refused("code_unknown", central.enrol(wrong, site=None, host="x"))
    told = await assert_refused("wrong_site", central.enrol(code, site="ankara", host="x"))
    assert "for site 'istanbul'" in told
    await assert_refused(
        "code_expired", central.enrol(await code_for(central_database, "ankara", hours=-1), site=None, host="x")
    )
    assert await central_database.fetch("SELECT * FROM credential") == []
    assert (await central.enrol(code, site="istanbul", host="x")).site == "istanbul"  # not burnt by the wrong site


async def test_two_that_use_one_code_at_the_same_moment_get_one_credential(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    code = await code_for(central_database, "istanbul")
    other = CentralDatabase(central_database.address, application_name="test")
    await asyncio.gather(central.ping(), other.ping())

    done = await asyncio.gather(
        *(one.enrol(code, site=None, host="x") for one in (central, other)), return_exceptions=True
    )
    await other.close()

    [refused] = [one for one in done if isinstance(one, SiteRefused)]
    assert refused.code == "code_used"
    assert len(await central_database.fetch("SELECT * FROM credential")) == 1


async def test_to_enrol_anew_takes_the_site_from_the_old_machine(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    old = await central.enrol(await code_for(central_database, "istanbul"), site=None, host="old")
    await central.greet(Greeting("istanbul", "1", holder="old", host="old", lease=None, lease_seconds=60))

    await central.enrol(await code_for(central_database, "istanbul"), site=None, host="new")

    told = await assert_refused("credential_revoked", central.verify(old.credential))
    assert "`edge-hub sites code istanbul`" in told
    await central.greet(Greeting("istanbul", "1", holder="new", host="new", lease=None, lease_seconds=60))
    [row] = await central_database.fetch("SELECT refused_why FROM site WHERE name = 'istanbul'")
    assert row["refused_why"] == "credential_revoked"


async def test_a_credential_that_is_wrong_is_unknown(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    enrolled = await central.enrol(await code_for(central_database, "istanbul"), site=None, host="x")
    public, _, secret = enrolled.credential.partition(".")

    flipped = ("A" if secret[0] != "A" else "B") + secret[1:]
    for wrong in (f"{public}.{flipped}", f"{'0' * 16}.{secret}", public, secret, "", ".", "\0", "\ud800", "x" * 10_000):
        await assert_refused("credential_unknown", central.verify(wrong))
    await assert_refused("credential_unknown", central.verify(enrolled.credential + "x"))


async def test_the_old_credential_works_until_the_new_one_is_used(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    old = (await central.enrol(await code_for(central_database, "istanbul"), site=None, host="x")).credential
    await central.verify(old)

    lost = await central.rotate(old)  # its answer never came
    new = await central.rotate(old)

    await central.verify(old)
    await assert_refused("credential_revoked", central.verify(lost))
    await central.verify(new)
    await assert_refused("credential_revoked", central.verify(old))
    await assert_refused("credential_revoked", central.rotate(old))
    await central.verify(new)


async def test_an_expired_and_a_revoked_credential_are_told_apart_and_noted(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    credential = (await central.enrol(await code_for(central_database, "istanbul"), site=None, host="x")).credential
    await central_database.execute("UPDATE credential SET expires_at = now() - interval '1 s'")
    await assert_refused("credential_expired", central.verify(credential))
    async with central_database.connection() as owner:
        await sites.revoke(owner, "istanbul", who="test")
        await assert_refused("credential_revoked", central.verify(credential))
        found = {site.name: site for site in await sites.read_sites(owner)}

    assert (found["istanbul"].refused_why, found["istanbul"].has_credential) == ("credential_revoked", False)


async def test_a_disabled_site_can_neither_enrol_nor_rotate(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    credential = (await central.enrol(await code_for(central_database, "istanbul"), site=None, host="x")).credential
    code = await code_for(central_database, "istanbul")
    await central_database.execute("UPDATE site SET is_disabled = true")

    await assert_refused("site_disabled", central.rotate(credential))
    await assert_refused("site_disabled", central.enrol(code, site=None, host="x"))
    await central_database.execute("UPDATE site SET is_disabled = false")
    assert (await central.enrol(code, site=None, host="x")).site == "istanbul"


async def test_whatever_is_done_is_in_the_audit(central: CentralDatabase, central_database: PostgresDatabase) -> None:
    enrolled = await central.enrol(
        await code_for(central_database, "istanbul"), site=None, host="pbx-1\x1b[31m" + "x" * 500
    )
    await central.rotate(enrolled.credential)

    async with central_database.connection() as owner:
        lines = await sites.read_audit(owner, "istanbul", 10)

    assert [(line.who, line.what) for line in lines] == [("hub", "rotated"), ("hub", "enrolled"), ("test", "code made")]
    assert str(lines[1].detail).isprintable()


def test_codes_are_of_80_bits_and_easy_to_read() -> None:
    code = make_code()

    assert [len(group) for group in code.split("-")] == [4, 4, 4, 4]
    assert hash_of_code(code) != hash_of_code(make_code())
    assert not set(code) & set("ILOU")
