import pytest

from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.webhooks import subscriptions
from stellwerk.webhooks.payloads import EVENTS
from stellwerk.webhooks.subscriptions import MOST_SUBSCRIPTIONS, ROTATION_SECONDS, WebhookLimit

NOW = 1_000.0


@pytest.fixture
def call(database):
    def run(work, *arguments, **named):
        return database.write(lambda connection: work(connection, *arguments, **named))

    return run


def test_a_subscription_is_kept_as_it_was_made(subscribe, call):
    made = subscribe("http://a.example/hook", ("key.parked", "budget.reached"), description=" mine ", with_key=True)
    assert made.url == "http://a.example/hook"
    assert made.events == ("budget.reached", "key.parked")
    assert made.description == "mine"
    assert (made.active, made.with_key, made.with_images) == (True, True, False)
    assert call(subscriptions.list_subscriptions) == [made]


@pytest.mark.parametrize(
    "url",
    ["", "ftp://a.example", "file:///etc/passwd", "https://", "https:///x", "/hook", "https://a.example/ b", "http://[::1",
     "https://ä.example", "https://a.example/" + "x" * 2048],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(subscribe, url):
    with pytest.raises(BadRequest) as caught:
        subscribe(url)
    assert caught.value.code == "invalid_url"


@pytest.mark.parametrize("events", [(), ("nothing",), ("test",), ("key.parked", "nothing")])
def test_only_known_events_can_be_wanted(subscribe, events):
    with pytest.raises(BadRequest) as caught:
        subscribe(events=events)
    assert caught.value.code == "invalid_events"


@pytest.mark.parametrize("text", ["x" * 201, "two\nlines"])
def test_a_description_is_one_line(subscribe, text):
    with pytest.raises(BadRequest) as caught:
        subscribe(description=text)
    assert caught.value.code == "invalid_description"


def test_there_is_a_most(subscribe, call):
    fields = {"url": "http://a.example", "events": ["key.parked"], "secret": b"sealed", "now": NOW}

    def fill(connection):
        for _ in range(MOST_SUBSCRIPTIONS):
            subscriptions.create(connection, **fields)

    call(fill)
    with pytest.raises(WebhookLimit):
        subscribe()
    call(subscriptions.delete, 1)
    subscribe()


def test_only_what_is_set_changes(subscribe, call):
    made = subscribe(description="old")
    before, after = call(subscriptions.change, made.id, now=NOW, description="new", events=EVENTS)
    assert before == made
    assert (after.description, after.events, after.url) == ("new", EVENTS, made.url)
    before, after = call(subscriptions.change, made.id, now=NOW)
    assert before == after


def test_a_new_secret_leaves_the_old_one_a_day(subscribe, call):
    made = subscribe()
    _, old = call(subscriptions.list_with_secrets)[0]
    call(subscriptions.change, made.id, now=NOW, secret=b"new")
    _, stored = call(subscriptions.list_with_secrets)[0]
    assert (stored.secret, stored.previous_secret) == (b"new", old.secret)
    assert stored.previous_until == NOW + ROTATION_SECONDS


def test_switching_on_gives_a_new_start(subscribe, call):
    made = subscribe()
    call(subscriptions.set_failing, made.id, NOW)
    assert call(subscriptions.disable, made.id, "It was gone.")
    assert not call(subscriptions.disable, made.id, "Another reason.")
    off = call(subscriptions.get, made.id)
    assert (off.active, off.disabled_reason, off.failing_since) == (False, "It was gone.", NOW)
    _, after = call(subscriptions.change, made.id, now=NOW, active=True)
    assert after == made


def test_what_is_deleted_is_gone_and_its_number_is_not_given_again(subscribe, call):
    made = subscribe()
    assert call(subscriptions.delete, made.id)
    assert not call(subscriptions.delete, made.id)
    assert subscribe().id == made.id + 1
    for work in (subscriptions.get, lambda connection, number: subscriptions.change(connection, number, now=NOW)):
        with pytest.raises(NotFound) as caught:
            call(work, made.id)
        assert caught.value.code == "webhook_not_found"
