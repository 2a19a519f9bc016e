import pytest

from stellwerk.core.principal import Role
from stellwerk.records.missing_models import MissingModel, add

PATH = "/admin/api/missing-models"


def row(name, at, key_id="k1", nearest=None):
    return MissingModel(name=name, key_id=key_id, user_id=7, count=2, first_at=at, last_at=at, nearest=nearest)


@pytest.fixture
def asked(site):
    rows = [row("gpt-5o", 1_000_000.0, nearest="openai/gpt"), row("qwen", 1_000_001.5), row("qwen", 1_000_002.0, "k2")]
    site.write(lambda connection: add(connection, rows))


async def test_names_that_lead_nowhere_are_listed_for_each_client_latest_first(site, asked):
    rows = await site.get(PATH)
    assert [(row["name"], row["key_id"]) for row in rows] == [("qwen", "k2"), ("qwen", "k1"), ("gpt-5o", "k1")]
    assert rows[2] == {
        "name": "gpt-5o",
        "key_id": "k1",
        "user_id": 7,
        "count": 2,
        "first_at": "1970-01-12T13:46:40.000Z",
        "last_at": "1970-01-12T13:46:40.000Z",
        "nearest": "openai/gpt",
    }
    assert len(await site.get(PATH, query="limit=1")) == 1


async def test_an_admin_forgets_one_name_or_all_and_that_is_recorded(site, asked):
    assert await site.send("DELETE", PATH, query="name=qwen") == {"forgotten": 2}
    assert [row["name"] for row in await site.get(PATH)] == ["gpt-5o"]
    assert await site.send("DELETE", PATH) == {"forgotten": 1}
    assert await site.send("DELETE", PATH) == {"forgotten": 0}
    assert [record for record in site.audited() if record[0] == "missing_models.forget"] == [
        ("missing_models.forget", "missing-models"),
        ("missing_models.forget", "missing-model:qwen"),
    ]


async def test_a_viewer_reads_and_changes_nothing(site, asked):
    viewer = site.make_key(None, Role.VIEWER)
    assert len(await site.get(PATH, key=viewer)) == 3
    assert await site.refused("DELETE", PATH, key=viewer) == (403, "permission_denied")
    assert len(await site.get(PATH)) == 3


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "name=x"])
async def test_a_query_that_means_nothing_is_refused(site, query):
    assert (await site.refused("GET", PATH, query=query))[0] == 400
