from datetime import UTC, datetime

import pytest
from sqlalchemy import event, insert

from stellwerk.ledger import reports
from stellwerk.ledger.calls import calls
from stellwerk.ledger.holds import ESTIMATED, SETTLED, holds
from stellwerk.ledger.reports import DailyUsage, RecentCall, Stats, UsageRow

DAY = 86_400
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC).timestamp()

CALL = {
    "id": "req_1",
    "at": NOW,
    "key_id": "key_a",
    "user_id": 1,
    "operation": "chat",
    "model": "fast",
    "stream": False,
    "status": 200,
    "error": None,
    "attempts": 1,
    "input_tokens": 100,
    "output_tokens": 10,
    "cached_tokens": 40,
    "reasoning_tokens": 0,
    "audio_milliseconds": 0,
    "characters": 0,
    "pages": 0,
    "estimated": False,
    "cost": 1_500_000,
    "duration": 0.5,
}
HOLD = {
    "owner": "gone",
    "call_id": "req_2",
    "user_id": 7,
    "key_id": "key_b",
    "from_balance": True,
    "amount": 10,
    "input_amount": 6,
    "budgets": [],
}
UNCOUNTED = {"error": "upstream_error", "status": 502, "input_tokens": None, "output_tokens": None, "cost": None}


@pytest.fixture
def store(database):
    def store(*changes):
        rows = [CALL | change for change in changes]
        database.write(lambda connection: connection.execute(insert(calls), rows))

    return store


@pytest.fixture
def ask(database):
    return lambda report, *arguments, **filters: database.read(
        lambda connection: report(connection, *arguments, **filters)
    )


def test_days_are_those_of_utc_newest_first_and_without_the_empty_ones(store, ask):
    store(
        {"at": MIDNIGHT},
        {"at": NOW, "duration": 1.0},
        {"at": MIDNIGHT - 0.001},
        {"at": MIDNIGHT - 2 * DAY} | UNCOUNTED,
        {"at": MIDNIGHT - 2 * DAY - 0.001},
        {"at": NOW, "user_id": 2},
    )
    assert ask(reports.daily_usage, 1, 3, NOW) == [
        DailyUsage(date="2026-11-21", tokens_in=200, tokens_out=20, cost=3.0, requests=2, avg_latency=750.0),
        DailyUsage(date="2026-11-20", tokens_in=100, tokens_out=10, cost=1.5, requests=1, avg_latency=500.0),
        DailyUsage(date="2026-11-19", tokens_in=0, tokens_out=0, cost=0.0, requests=1, avg_latency=500.0),
    ]
    assert [day.date for day in ask(reports.daily_usage, 1, 1, NOW)] == ["2026-11-21"]
    assert ask(reports.daily_usage, 3, 7, NOW) == []


def test_usage_is_summed_by_each_group(store, ask):
    store({}, {"key_id": "key_b", "cost": 2_000_000}, {"user_id": 2, "model": "slow", "at": NOW - DAY}, UNCOUNTED)
    totals = {"cached_tokens": 40, "average_duration": 0.5}
    assert ask(reports.usage_by, "key", 0.0, NOW + 1) == [
        UsageRow(
            value="key_a",
            calls=3,
            failed=1,
            input_tokens=200,
            output_tokens=20,
            cost=3_000_000,
            **(totals | {"cached_tokens": 120}),
        ),
        UsageRow(value="key_b", calls=1, failed=0, input_tokens=100, output_tokens=10, cost=2_000_000, **totals),
    ]

    def values(*arguments, **filters):
        return [(row.value, row.calls) for row in ask(reports.usage_by, *arguments, **filters)]

    assert values("user", 0.0, NOW + 1) == [("1", 3), ("2", 1)]
    assert values("model", 0.0, NOW + 1) == [("fast", 3), ("slow", 1)]
    assert values("day", 0.0, NOW + 1) == [("2026-11-21", 3), ("2026-11-20", 1)]
    assert values("day", 0.0, NOW + 1, limit=1) == [("2026-11-21", 3)]
    assert values("day", 0.0, NOW) == [("2026-11-20", 1)]
    assert values("key", NOW, NOW + 1, user_id=1) == [("key_b", 1), ("key_a", 2)]
    assert values("user", 0.0, NOW + 1, key_id="key_a") == [("1", 2), ("2", 1)]
    assert values("user", 0.0, NOW + 1, model="slow") == [("2", 1)]


def test_tokens_are_summed_over_all_time_by_user(store, ask):
    assert ask(reports.usage_of_users) == {}
    assert ask(reports.usage_of_user, 1) is None
    store({}, {"at": 1.0}, {"user_id": 2} | UNCOUNTED)
    assert ask(reports.usage_of_users) == {1: 220, 2: 0}
    assert (ask(reports.usage_of_user, 1), ask(reports.usage_of_user, 2)) == (220, 0)


def test_the_last_24_hours_of_all_or_of_one_user(store, ask):
    nothing = Stats(total_requests=0, total_tokens=0, avg_latency_ms=0.0, total_cost=0.0)
    assert ask(reports.stats_24h, NOW) == nothing
    store({}, {"user_id": 2, "duration": 0.25, "at": NOW - DAY}, {"at": NOW - DAY - 1})
    assert ask(reports.stats_24h, NOW) == Stats(
        total_requests=2, total_tokens=220, avg_latency_ms=375.0, total_cost=3.0
    )
    assert ask(reports.stats_24h, NOW, 2).avg_latency_ms == 250.0
    assert ask(reports.stats_24h, NOW, user_id=3) == nothing


def test_the_last_use_of_keys(store, ask):
    store({"at": 5.0}, {"at": 9.0}, {"at": 7.0}, {"key_id": "key_b", "at": 3.0})
    assert ask(reports.last_used, ["key_a", "key_b", "never"]) == {"key_a": 9.0, "key_b": 3.0}
    assert ask(reports.last_used, []) == {}


def test_recent_calls_are_those_that_were_let_through(store, ask):
    store({"at": 10.0}, {"at": 12.0, "user_id": 2} | UNCOUNTED, {"at": 9.0}, {"at": 13.0, "attempts": 0} | UNCOUNTED)
    assert ask(reports.recent_calls, 10.0) == [
        RecentCall(key_id="key_a", user_id=2, model="fast", at=12.0, tokens=0),
        RecentCall(key_id="key_a", user_id=1, model="fast", at=10.0, tokens=110),
    ]


def test_what_ran_when_a_process_was_killed_is_a_recent_call(store, ask, database):
    store({"at": 11.0})
    rows = [
        {**HOLD, "id": "cut", "at": 12.0, "state": ESTIMATED},
        {**HOLD, "id": "settled", "at": 12.0, "state": SETTLED},
        {**HOLD, "id": "long ago", "at": 9.0, "state": ESTIMATED},
    ]
    database.write(lambda connection: connection.execute(insert(holds), rows))
    assert ask(reports.recent_calls, 10.0) == [
        RecentCall(key_id="key_b", user_id=7, model="", at=12.0, tokens=0),
        RecentCall(key_id="key_a", user_id=1, model="fast", at=11.0, tokens=110),
    ]


@pytest.mark.parametrize(
    ("report", "arguments", "filters", "index"),
    [
        (reports.daily_usage, (1, 7, NOW), {}, "ix_calls_user_id_at (user_id=? AND at>?)"),
        (reports.usage_by, ("day", 0.0, NOW), {}, "ix_calls_at (at>? AND at<?)"),
        (reports.usage_by, ("model", 0.0, NOW), {"user_id": 1}, "ix_calls_user_id_at (user_id=? AND at>? AND at<?)"),
        (reports.usage_by, ("day", 0.0, NOW), {"key_id": "a"}, "ix_calls_key_id_at (key_id=? AND at>? AND at<?)"),
        (reports.usage_of_user, (1,), {}, "ix_calls_user_id_at (user_id=?)"),
        (reports.stats_24h, (NOW,), {}, "ix_calls_at (at>?)"),
        (reports.stats_24h, (NOW, 1), {}, "ix_calls_user_id_at (user_id=? AND at>?)"),
        (reports.last_used, (["a"],), {}, "COVERING INDEX ix_calls_key_id_at (key_id=?)"),
        (reports.recent_calls, (NOW,), {}, "ix_calls_at (at>?)"),
    ],
)
def test_no_report_of_a_user_a_key_or_a_time_reads_the_whole_table(database, ask, report, arguments, filters, index):
    statements = []

    @event.listens_for(database.reading, "before_cursor_execute")
    def keep(connection, cursor, statement, parameters, context, many):
        statements.append((statement, parameters))

    ask(report, *arguments, **filters)
    statement, parameters = statements[-1]
    plan = database.read(
        lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    )
    assert index in plan[0][3]
    assert not any(step[3].startswith("SCAN") for step in plan)
