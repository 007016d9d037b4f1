"""What waits for the centre, and what it refused."""

from agent.cli.faults import ExitCode
from tests.unit.cli.local_site import LocalSite, call, refused, sid


def test_an_empty_outbox_says_so(site: LocalSite) -> None:
    site.keep(call(1, tenant=None))
    assert site.run("outbox").stdout == "Nothing waits for the centre.\nNo call was refused by the centre.\n"
    assert site.json("outbox") == {"waiting": 0, "oldest_at": None, "quarantined": 0, "quarantine": []}


def test_what_waits_and_what_was_refused_is_shown_with_code_and_reason(site: LocalSite) -> None:
    site.keep(call(1), call(2))
    site.settle(refused(2))
    lines = site.run("outbox").stdout.splitlines()
    assert lines[0].startswith("1 call waiting for the centre, the oldest since ")
    assert lines[1] == "1 call refused by the centre; edge-agent outbox retry sends them again:"
    assert lines[3].endswith(f"acme    {sid(2)}  22P05  untranslatable character")
    told = site.json("outbox")
    assert (told["waiting"], told["quarantined"], told["quarantine"][0]["code"]) == (1, 1, "22P05")


def test_without_an_agent_refused_calls_wait_again(site: LocalSite) -> None:
    site.keep(call(1), call(2), call(3))
    site.settle(refused(1), refused(2), refused(3))
    assert site.run("outbox", "retry", "01.1").stdout == "1 call will be sent again.\n"
    assert site.json("outbox", "retry") == {"requeued": 2}
    assert site.json("outbox")["waiting"] == 3


def test_retrying_a_call_that_was_not_refused_is_an_error(site: LocalSite) -> None:
    site.keep(call(1))
    result = site.run("outbox", "retry", sid(1))
    assert result.exit_code == ExitCode.ERROR
    assert "no refused call has an id that ends in" in result.stderr
