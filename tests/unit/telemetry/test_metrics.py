"""The rendered text is read by Prometheus' own Python parser."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stellwerk.core.call import Operation
from stellwerk.telemetry.metrics import MAX_LABEL_SETS, MAX_MODELS, Metrics


@pytest.fixture
def metrics():
    return Metrics(version="1.2.3", currency="CHF")


def parsed(metrics):
    """Samples by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics, name, **labels):
    return parsed(metrics).get((name, *sorted(labels.items())))


MODEL = {"operation": "chat", "model": "gpt-5-mini", "provider": "openai"}


def test_calls_are_counted_by_operation_model_provider_and_status(metrics, make_outcome):
    for status in (200, 200, 429):
        metrics.record(make_outcome(status=status))
    metrics.record(make_outcome(operation=Operation.EMBEDDING))
    assert value(metrics, "stellwerk_requests_total", **MODEL, status="200") == 2
    assert value(metrics, "stellwerk_requests_total", **MODEL, status="429") == 1
    assert value(metrics, "stellwerk_requests_total", **MODEL | {"operation": "embedding"}, status="200") == 1


def test_a_model_that_reached_no_target_makes_no_label_of_its_own(metrics, make_outcome):
    for number in range(10):
        metrics.record(make_outcome(model=f"invented-{number}", provider=None, target=None, status=404))
    assert (
        value(metrics, "stellwerk_requests_total", operation="chat", model="none", provider="none", status="404") == 10
    )
    assert b"invented" not in metrics.render()


def test_durations_fall_into_the_bucket_whose_edge_they_do_not_exceed(metrics, make_outcome):
    for seconds in (0.01, 0.011, 1_000.0):
        metrics.record(make_outcome(duration=seconds))
    bucket = "stellwerk_request_duration_seconds_bucket"
    assert value(metrics, bucket, **MODEL, le="0.01") == 1
    assert value(metrics, bucket, **MODEL, le="0.02") == 2
    assert value(metrics, bucket, **MODEL, le="81.92") == 2
    assert value(metrics, bucket, **MODEL, le="+Inf") == 3
    assert value(metrics, "stellwerk_request_duration_seconds_count", **MODEL) == 3
    assert value(metrics, "stellwerk_request_duration_seconds_sum", **MODEL) == pytest.approx(1_000.021)


def test_the_first_token_is_timed_for_streams_only(metrics, make_outcome):
    metrics.record(make_outcome(stream=True, first_byte=0.03))
    metrics.record(make_outcome(stream=False, first_byte=0.03))
    metrics.record(make_outcome(stream=True, first_byte=None))
    assert value(metrics, "stellwerk_time_to_first_token_seconds_count", **MODEL) == 1
    assert value(metrics, "stellwerk_time_to_first_token_seconds_bucket", **MODEL, le="0.02") == 0
    assert value(metrics, "stellwerk_time_to_first_token_seconds_bucket", **MODEL, le="0.04") == 1


def test_tokens_and_cost_add_up(metrics, make_outcome):
    metrics.record(make_outcome())
    metrics.record(make_outcome())
    metrics.record(make_outcome(usage=None, cost=None))
    tokens = {kind: value(metrics, "stellwerk_tokens_total", **MODEL, type=kind) for kind in ("input", "output")}
    assert tokens == {"input": 24, "output": 68}
    assert value(metrics, "stellwerk_tokens_total", **MODEL, type="cache_read") == 16
    assert value(metrics, "stellwerk_tokens_total", **MODEL, type="reasoning") == 40
    assert value(metrics, "stellwerk_cost_total", **MODEL, currency="CHF") == pytest.approx(0.003)


def test_an_error_is_counted_also_when_the_client_had_seen_a_200(metrics, make_outcome):
    metrics.record(make_outcome(status=200, error="upstream_broken"))
    metrics.record(make_outcome(status=502, error="upstream_broken"))
    metrics.record(make_outcome(status=404, error="model_not_found", provider=None, target=None))
    assert value(metrics, "stellwerk_call_errors_total", code="upstream_broken", provider="openai") == 2
    assert value(metrics, "stellwerk_call_errors_total", code="model_not_found", provider="none") == 1


def test_what_others_report_is_counted(metrics):
    metrics.refused("invalid_api_key")
    metrics.refused("invalid_api_key")
    metrics.left()
    metrics.retried()
    metrics.fell_back()
    metrics.connected()
    metrics.reused()
    metrics.reused()
    assert value(metrics, "stellwerk_refusals_total", code="invalid_api_key") == 2
    assert value(metrics, "stellwerk_client_disconnects_total") == 1
    assert value(metrics, "stellwerk_retries_total") == 1
    assert value(metrics, "stellwerk_fallbacks_total") == 1
    assert value(metrics, "stellwerk_upstream_connections_total", state="opened") == 1
    assert value(metrics, "stellwerk_upstream_connections_total", state="reused") == 2


def test_watched_values_are_read_at_every_rendering(metrics):
    readings = iter([3, 4])
    metrics.watch("in_flight", "Calls on their way.", lambda: next(readings))
    assert value(metrics, "stellwerk_in_flight") == 3
    assert value(metrics, "stellwerk_in_flight") == 4


def test_a_watched_mapping_has_one_sample_for_each_state(metrics):
    metrics.watch("local_slots", "Engine slots.", lambda: {"ready": 2, "loading": 1})
    metrics.watch("log_lines_dropped_total", "Lost lines.", lambda: 7, kind="counter")
    metrics.watch("ready", "Whether calls are taken.", lambda: True)
    metrics.watch("absent", "Not known here.", lambda: None)
    assert value(metrics, "stellwerk_local_slots", state="ready") == 2
    assert value(metrics, "stellwerk_local_slots", state="loading") == 1
    assert value(metrics, "stellwerk_log_lines_dropped_total") == 7
    assert value(metrics, "stellwerk_ready") == 1
    assert b"absent" not in metrics.render()


def test_a_name_cannot_be_watched_twice(metrics):
    metrics.watch("in_flight", "Calls on their way.", lambda: 1)
    with pytest.raises(ValueError, match="in_flight"):
        metrics.watch("in_flight", "The same again.", lambda: 2)


def test_the_process_and_the_version_are_there_from_the_start(metrics):
    assert value(metrics, "stellwerk_build_info", version="1.2.3") == 1
    assert value(metrics, "stellwerk_process_rss_bytes") > 1_000_000
    assert value(metrics, "stellwerk_process_open_fds") >= 3


def test_label_sets_are_bounded_and_nothing_is_lost(metrics, make_outcome):
    calls = MAX_LABEL_SETS + 500
    for number in range(calls):
        metrics.record(make_outcome(target=f"model-{number}", error=f"error-{number}"))
        metrics.refused(f"code-{number}")
    samples = parsed(metrics)
    for name, bound in (
        ("stellwerk_requests_total", MAX_LABEL_SETS),
        ("stellwerk_call_errors_total", MAX_LABEL_SETS),
        ("stellwerk_refusals_total", MAX_LABEL_SETS),
        ("stellwerk_request_duration_seconds_count", MAX_MODELS),
    ):
        counts = {key: count for key, count in samples.items() if key[0] == name}
        assert len(counts) == bound + 1
        assert sum(counts.values()) == calls
    overflow = {"operation": "chat", "model": "other", "provider": "other"}
    assert value(metrics, "stellwerk_requests_total", **overflow, status="200") == 500


def test_a_name_too_long_for_a_label_is_counted_as_other(metrics, make_outcome):
    metrics.record(make_outcome(target="x" * 10_000))
    metrics.refused("y" * 10_000)
    overflow = {"operation": "chat", "model": "other", "provider": "other"}
    assert value(metrics, "stellwerk_requests_total", **overflow, status="200") == 1
    assert value(metrics, "stellwerk_refusals_total", code="other") == 1


@pytest.mark.parametrize("name", ['quote " here', "back \\ slash", "line\nfeed", "\\n", "ümläut 模型", "\ud800"])
def test_any_name_survives_as_a_label(metrics, make_outcome, name):
    metrics.record(make_outcome(target=name))
    readable = name.encode("utf-8", "replace").decode()
    labels = MODEL | {"model": readable}
    assert value(metrics, "stellwerk_requests_total", **labels, status="200") == 1


def test_every_metric_has_its_help_and_type_before_its_samples(metrics, make_outcome):
    metrics.record(make_outcome(error="upstream_broken"))
    metrics.refused("invalid_api_key")
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        assert family.name.startswith("stellwerk_")
        assert family.samples


def test_no_key_is_named(metrics, make_outcome):
    metrics.record(make_outcome(key_id="key_canary"))
    assert b"key_canary" not in metrics.render()
