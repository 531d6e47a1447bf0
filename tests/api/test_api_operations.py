import pytest
from fakes.api_fakes import ApiBench, api_bench
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.metrics import Sample


def shed(reason: str, value: float) -> Sample:
    return Sample("gateway_messages_shed_total", "Messages shed.", "counter", {"reason": reason}, value)


async def test_health_without_a_token_shows_states_but_no_details(api: ApiBench) -> None:
    status, headers, report = await api.call_raw("GET", "/health", token=None)
    assert (status, report["status"], headers["Content-Type"]) == (200, "ok", "application/json")
    assert report["parts"]["rules"] == {"state": "running", "restarts": 0, "detail": "", "since": ""}
    assert report["processes"] == [{"name": "gateway", "pid": 1, "rss_bytes": 1, "cpu_percent": 0.0}]
    assert {"database", "disk_free_bytes", "cpu_percent", "memory_rss_bytes", "loop_lag_ms", "wasm", "uptime_s"} <= set(
        report
    )


async def test_health_with_a_users_token_shows_details_and_with_a_wrong_one_refuses(api: ApiBench) -> None:
    _, _, report = await api.call_raw("GET", "/health")
    assert report["parts"]["rules"]["detail"] == "secret detail"
    assert report["processes"][0]["name"] == "gateway"
    status, _, answer = await api.call_raw("GET", "/health", token="wrong")
    assert (status, answer["code"]) == (401, "auth.failed")


async def test_health_shows_another_tenants_user_no_more_than_a_passer_by() -> None:
    async with api_bench() as api:
        await api.identity.add_user("stranger", "*", tenant_id="other")
        token = await api.identity.token_of("stranger")
        _, _, report = await api.call_raw("GET", "/health", token=token)
        assert report["parts"]["rules"]["detail"] == ""
    async with api_bench(metrics_token="metrics") as api:
        await api.identity.add_user("stranger", "*", tenant_id="other")
        token = await api.identity.token_of("stranger")
        assert (await api.call_raw("GET", "/health", token=token))[2] == {"status": "ok"}
        assert (await api.call_raw("GET", "/metrics", token=token))[0] == 401


async def test_degraded_health_answers_503_with_the_report(api: ApiBench) -> None:
    api.health.status = "degraded"
    status, _, report = await api.call_raw("GET", "/health", token=None)
    assert (status, report["status"]) == (503, "degraded")


async def test_metrics_show_every_sample_by_name_and_label(api: ApiBench) -> None:
    api.sample_list = [
        Sample("gateway_messages_accepted_total", "Messages accepted.", "counter", {}, 7),
        shed("unknown_device", 2),
        Sample("gateway_journal_waiting", "Messages waiting.", "gauge", {}, 3.5),
        shed('odd "reason"\n', 1),
    ]
    status, headers, text = await api.call_raw("GET", "/metrics", token=None)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert text.count("# TYPE gateway_messages_shed_total counter") == 1
    found = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["gateway_messages_accepted_total", ()] == 7
    assert found["gateway_messages_shed_total", ("unknown_device",)] == 2
    assert found["gateway_messages_shed_total", ('odd "reason"\n',)] == 1
    assert found["gateway_journal_waiting", ()] == 3.5
    assert found["gateway_streams_open", ()] == 0
    assert found["gateway_http_refused_connections_total", ()] == 0


async def test_metrics_show_a_histogram_as_prometheus_reads_it(api: ApiBench) -> None:
    text_of = "How long it took."
    for plugin, counts in (("a", (1, 3, 4)), ("b", (0, 0, 0))):
        buckets = tuple(zip((0.001, 0.25, float("inf")), counts, strict=True))
        api.sample_list.append(
            Sample("gateway_call_seconds", text_of, "histogram", {"plugin": plugin}, counts[-1] / 2, buckets)
        )
    _, _, text = await api.call_raw("GET", "/metrics", token=None)
    assert text.count("# TYPE gateway_call_seconds histogram") == 1
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "gateway_call_seconds"]
    assert family.type == "histogram"
    found = {
        (sample.name[21:], sample.labels["plugin"], sample.labels.get("le")): sample.value for sample in family.samples
    }
    assert [found["bucket", "a", bound] for bound in ("0.001", "0.25", "+Inf")] == [1, 3, 4]
    assert (found["count", "a", None], found["sum", "a", None]) == (4, 2)
    assert (found["bucket", "b", "+Inf"], found["count", "b", None]) == (0, 0)


async def test_the_apis_own_answers_are_counted(api: ApiBench) -> None:
    await api.call("GET", "/devices", expect=200)
    await api.call("GET", "/nothing", expect=404)
    _, _, text = await api.call_raw("GET", "/metrics", token=None)
    assert 'gateway_http_requests_total{method="GET",status="200"} 1.0' in text
    assert 'gateway_http_requests_total{method="GET",status="404"} 1.0' in text


@pytest.mark.parametrize("token", [None, "wrong", "metrics"])
async def test_a_metrics_token_closes_metrics_and_the_whole_of_health(token: str | None) -> None:
    async with api_bench(metrics_token="metrics") as api:
        good = token == "metrics"
        assert (await api.call_raw("GET", "/metrics", token=token))[0] == (200 if good else 401)
        status, _, report = await api.call_raw("GET", "/health", token=token)
        assert status == (401 if token == "wrong" else 200)
        if token is None:
            assert report == {"status": "ok"}
        if good:
            assert report["parts"]["rules"]["detail"] == "secret detail"
