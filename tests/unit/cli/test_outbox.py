"""What waits for the centre, and what it refused."""

from tests.unit.cli.local_site import LocalSite, call, refused


def test_an_empty_outbox_says_so(site: LocalSite) -> None:
    site.keep(call(1, tenant=None))
    assert site.run("outbox").stdout == "Nothing waits for the centre.\nNo call was refused by the centre.\n"
    assert site.json("outbox") == {"waiting": 0, "oldest_at": None, "quarantined": 0}


def test_how_much_waits_and_was_refused_is_told(site: LocalSite) -> None:
    site.keep(call(1), call(2))
    site.settle(refused(2))
    lines = site.run("outbox").stdout.splitlines()
    assert lines[0].startswith("1 call waiting for the centre, the oldest since ")
    assert lines[1] == "1 call refused by the centre: edge-agent quarantine list"
    told = site.json("outbox")
    assert (told["waiting"], told["quarantined"]) == (1, 1)
