import pytest

from stellwerk.api.admin.reports import StatsShape, prefers_english, say
from stellwerk.core.principal import Role

SUMMARY = "/v1/stats/summary"


async def test_usage_is_summed_up_by_what_is_asked_for(site):
    user = site.make_user()
    site.record_call(user.id, key_id="one", cost=1_500)
    site.record_call(user.id, key_id="two", model="other", cost=500, error="upstream_error")
    site.clock.at += 1
    [row] = await site.get("/admin/api/usage")
    assert row == {
        "value": "1970-01-12",
        "requests": 2,
        "failed": 1,
        "tokens_in": 200,
        "tokens_out": 40,
        "tokens_cached": 0,
        "cost": 0.002,
        "avg_latency_ms": 500.0,
    }
    for group, values in (("user", [str(user.id)]), ("key", ["one", "two"]), ("model", ["demo", "other"])):
        assert [row["value"] for row in await site.get("/admin/api/usage", query=f"group={group}")] == values
    [row] = await site.get("/admin/api/usage", query=f"model=other&user_id={user.id}")
    assert row["requests"] == 1


async def test_usage_has_a_beginning_and_an_end(site):
    site.record_call(1, at=900_000.0)
    site.record_call(1, at=1_000_000.0)
    since = "since=1970-01-12T00:00:00Z"
    [row] = await site.get("/admin/api/usage", query=f"{since}&until=1970-01-13T00:00:00Z")
    assert (row["value"], row["requests"]) == ("1970-01-12", 1)
    assert await site.get("/admin/api/usage", query=f"{since}&until=1970-01-12T00:00:00Z") == []
    assert len(await site.get("/admin/api/usage", query="until=1970-02-01T00:00:00Z")) == 2


@pytest.mark.parametrize(
    "query",
    ["group=colour", "since=yesterday", "until=0.5", "since=1970-01-12T00:00:00%2B99:00",
     "since=1970-01-12T00:00:00", "user_id=x", "key_id=x", "days=3",
     "since=1971-01-01T00:00:00Z&until=1970-01-01T00:00:00Z", "group=day&group=day"],
)  # fmt: skip
async def test_a_question_that_cannot_be_is_refused(site, query):
    assert (await site.refused("GET", "/admin/api/usage", query=query))[0] == 400


async def test_the_summary_of_an_observer_is_about_everybody(site):
    user = site.make_user()
    site.record_call(user.id)
    site.record_call(1)
    site.record_call(1, at=site.clock.at - 86_401)
    for key in (site.admin, site.make_key(None, Role.VIEWER)):
        shown = await site.get(SUMMARY, key=key)
        assert shown == {
            "period": "24h",
            "summary": "In den letzten 24 Stunden: 2 Anfragen mit 240 Tokens für 0,0020 EUR, im Mittel 0,5 s, "
            "1 neuer Benutzer. Geladene Modelle: 1.",
            "stats": {
                "new_users": 1,
                "total_requests": 2,
                "total_tokens": 240,
                "avg_latency_ms": 500.0,
                "total_cost": 0.002,
            },
            "system": {"cpu_percent": 12.5, "ram_used_gb": 1.0, "ram_total_gb": 4.0, "ram_percent": 25.0},
            "active_models": 1,
            "models": ["demo"],
        }


async def test_the_summary_of_a_user_is_about_himself(site):
    user = site.make_user(models=frozenset({"other"}))
    key = site.make_key(user.id)
    site.record_call(user.id)
    site.record_call(1)
    shown = await site.get(SUMMARY, key=key)
    assert (shown["stats"]["total_requests"], shown["stats"]["new_users"], shown["system"]) == (1, 0, None)
    assert (shown["active_models"], shown["models"]) == (0, [])
    assert "Benutzer" not in shown["summary"]


async def test_the_sentence_is_in_the_language_of_the_reader(site):
    shown = await site.get(SUMMARY, headers={b"accept-language": b"en-GB,en;q=0.9,de;q=0.5"})
    assert shown["summary"] == (
        "In the last 24 hours: 0 requests with 0 tokens for 0.0000 EUR, 0.0 s on average, 0 new users. "
        "Models loaded: 1."
    )


@pytest.mark.parametrize(
    ("number", "german", "english"),
    [
        (
            1,
            "In den letzten 24 Stunden: 1 Anfrage mit 1 Token für 1,5000 EUR, im Mittel 0,5 s, 1 neuer Benutzer. "
            "Geladene Modelle: 1.",
            "In the last 24 hours: 1 request with 1 token for 1.5000 EUR, 0.5 s on average, 1 new user. "
            "Models loaded: 1.",
        ),
        (
            0,
            "In den letzten 24 Stunden: 0 Anfragen mit 0 Tokens für 1,5000 EUR, im Mittel 0,5 s, 0 neue Benutzer. "
            "Geladene Modelle: 0.",
            "In the last 24 hours: 0 requests with 0 tokens for 1.5000 EUR, 0.5 s on average, 0 new users. "
            "Models loaded: 0.",
        ),
    ],
)
def test_the_sentence_counts_as_people_do(number, german, english):
    stats = StatsShape(
        new_users=number, total_requests=number, total_tokens=number, avg_latency_ms=500.0, total_cost=1.5
    )
    assert say(stats, number, "EUR", english=False, all_users=True) == german
    assert say(stats, number, "EUR", english=True, all_users=True) == english


@pytest.mark.parametrize(
    ("header", "english"),
    [
        (b"", False),
        (b"en", True),
        (b"de, en", False),
        (b"en, de", True),
        (b"fr, de;q=0.5, en;q=0.7", True),
        (b"en;q=0.1, de;q=0.2", False),
        (b"en;q=x", False),
        (b"\xff\xfe", False),
        (b"EN-us", True),
        (b"*", False),
        (b"," * 10_000, False),
    ],
)
def test_english_is_spoken_to_who_prefers_it(header, english):
    assert prefers_english(header) is english
