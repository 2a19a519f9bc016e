import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from stellwerk.limits.attempts import LONGEST_SECONDS, Rule, attempts, forget, prune, try_all, wait_of
from stellwerk.storage.database import open_database
from stellwerk.storage.writer import Writer

NOW = 1_790_000_000.123
FIVE = Rule("login:a@b.c", 5, 900.0)


def rows(database, subject=None):
    query = select(func.count()).select_from(attempts)
    if subject is not None:
        query = query.where(attempts.c.subject == subject)
    return database.read(lambda connection: connection.execute(query).scalar_one())


@pytest.fixture
def attempt(database):
    def attempt(*rules, now=NOW):
        return database.write(lambda connection: try_all(connection, rules, now=now))

    return attempt


def test_exactly_the_limit_is_allowed_and_then_the_wait_is_told(attempt):
    assert [attempt(FIVE, now=NOW + number) for number in range(5)] == [0.0] * 5
    assert attempt(FIVE, now=NOW + 10) == pytest.approx(890.0)


def test_who_waits_exactly_as_told_is_allowed(database):
    rules = (Rule("a", 3, 60.0), Rule("b", 5, 200.0))

    def wait_1000_times(connection):
        numbers, now, told = random.Random(3), NOW, 0
        while told < 1000:
            now += numbers.random() * 5
            if (pause := try_all(connection, rules, now=now)) > 0:
                told += 1
                now += pause
                assert try_all(connection, rules, now=now) == 0.0

    database.write(wait_1000_times)


def test_it_decides_like_a_list_of_all_attempts(database):
    subjects = [[Rule("a", 3, 60.0)], [Rule("b", 5, 200.0), Rule("b", 2, 10.0)], [Rule("c", 1, 30.0)]]

    def compare(connection):
        numbers, now, recorded = random.Random(4), NOW, []
        for _ in range(2000):
            now += numbers.choice((0, numbers.random(), numbers.random() * 20))
            asked = [rule for rules in numbers.sample(subjects, numbers.randint(1, 3)) for rule in rules]
            fits = all(
                sum(subject == rule.subject and at > now - rule.seconds for subject, at in recorded) < rule.limit
                for rule in asked
            )
            assert (try_all(connection, asked, now=now) == 0.0) == fits
            if fits:
                recorded += [(subject, now) for subject in {rule.subject for rule in asked}]

    database.write(compare)


def test_what_one_rule_refuses_no_other_counts(database, attempt):
    peer = Rule("peer:1", 20, 900.0)
    for number in range(50):
        assert (attempt(FIVE, peer) == 0.0) == (number < 5)
    assert rows(database, peer.subject) == 5
    for _ in range(15):
        assert attempt(peer) == 0.0
    assert attempt(peer) == 900.0
    assert attempt(Rule("login:other", 5, 900.0), peer) == 900.0
    assert rows(database, "login:other") == 0


def test_two_windows_of_one_subject_count_an_attempt_once(database, attempt):
    hour, day = Rule("signup:1", 2, 3600.0), Rule("signup:1", 3, 86400.0)
    assert [attempt(hour, day, now=NOW + at) for at in (0, 1, 3601)] == [0.0] * 3
    assert attempt(hour, day, now=NOW + 7300) == pytest.approx(86400 - 7300)
    assert rows(database) == 3


def test_looking_records_nothing(database, attempt):
    attempt(FIVE)
    waits = database.read(lambda connection: [wait_of(connection, [FIVE], NOW) for _ in range(20)])
    assert waits == [0.0] * 20
    assert rows(database) == 1


def test_what_is_forgotten_no_longer_counts(database, attempt):
    for _ in range(5):
        attempt(FIVE)
    attempt(Rule("other", 1, 900.0))
    database.write(lambda connection: forget(connection, FIVE.subject))
    assert attempt(FIVE) == 0.0
    assert attempt(Rule("other", 1, 900.0)) == 900.0


def test_attempts_outlive_a_restart(database, folder, attempt):
    for _ in range(5):
        attempt(FIVE)
    database.close()
    later = open_database(folder)
    assert later.write(lambda connection: try_all(connection, [FIVE], now=NOW + 1)) == 899.0
    later.close()


def test_the_table_stays_small_however_long_it_goes_on(database, attempt):
    rule, allowed = Rule("a", 3, 10.0), 0
    for number in range(150):
        allowed += attempt(rule, now=NOW + number) == 0.0
        if number % 50 == 0:
            assert rows(database) <= 3
    assert allowed == 45
    attempt(Rule("b", 1, 1.0), now=NOW + 150 + LONGEST_SECONDS)
    assert rows(database) == 1


def test_beyond_half_a_million_rows_the_oldest_go(database, attempt):
    attempt(Rule("old", 1, 900.0))
    insert = attempts.insert()
    database.write(
        lambda connection: connection.execute(insert.values(number=500_001, subject="flood", at=NOW)),
    )
    database.write(lambda connection: prune(connection, NOW))
    assert (rows(database, "old"), rows(database, "flood")) == (0, 1)


def test_a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_a_window(attempt):
    rule = Rule("a", 1, 900.0)
    assert attempt(rule, now=NOW + 1e8) == 0.0
    assert attempt(rule, now=NOW) == 900.0
    assert attempt(rule, now=NOW + 900) == 0.0


def test_clocks_of_two_processes_that_differ_a_little_change_nothing(attempt):
    rule = Rule("a", 1, 60.0)
    assert attempt(rule, now=NOW + 1) == 0.0
    assert attempt(rule, now=NOW) == 61.0
    assert attempt(rule, now=NOW + 60) == 1.0
    assert attempt(rule, now=NOW + 61) == 0.0


def test_a_subject_of_any_length_is_told_from_others(attempt):
    assert attempt(Rule("x" * 100_000, 1, 60.0)) == 0.0
    assert attempt(Rule("x" * 100_000, 1, 60.0)) == 60.0
    assert attempt(Rule("x" * 100_001, 1, 60.0)) == 0.0


@pytest.mark.parametrize("rule", [("a", 0, 60.0), ("a", 1, 0.0), ("a", 1, LONGEST_SECONDS + 1)])
def test_a_rule_that_makes_no_sense_is_refused(rule):
    with pytest.raises(ValueError, match="a rule needs"):
        Rule(*rule)


def test_many_threads_are_together_allowed_exactly_the_limit(database):
    rule = Rule("a", 20, 900.0)

    def ask(_):
        return database.write(lambda connection: try_all(connection, [rule], now=NOW))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(60))).count(0.0) == 20


def test_the_writer_allows_exactly_the_limit_in_one_commit(database):
    writer = Writer(database.writing)
    rule = Rule("a", 20, 900.0)
    asked = [writer.submit(lambda connection: try_all(connection, [rule], now=NOW)) for _ in range(200)]
    assert [each.result(10) for each in asked].count(0.0) == 20
    writer.close()
