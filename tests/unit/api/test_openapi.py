import re

import jsonschema
import pytest

from stellwerk.api.login import LoginAPI
from stellwerk.api.openapi import document
from stellwerk.api.public import PublicAPI
from stellwerk.core.principal import Role
from tests.admin_site import AdminSite


@pytest.fixture
def site(database, clock):
    site = AdminSite(database, clock)
    nothing = dict.fromkeys(("run", "fetch", "passwords", "mint", "digest", "on_change"))
    LoginAPI(clock=clock, **nothing).register(site.registry)
    open_to_all = PublicAPI(run=None, fetch=None, models=list, aliases=list, signup_enabled=lambda: False, clock=clock)
    open_to_all.register(site.registry)
    return site


@pytest.fixture
def made(site):
    return document(site.registry, "1.2.3")


def operations(made):
    return [(path, method, found) for path, methods in made["paths"].items() for method, found in methods.items()]


def check(made, value, schema):
    """`value` must be what `schema`, a part of the document, says."""
    resolvable = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": made["components"], **schema}
    jsonschema.Draft202012Validator.check_schema(resolvable)
    jsonschema.validate(value, resolvable, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_every_endpoint_is_in_the_document_once(site, made):
    expected = {(endpoint.path, endpoint.method.lower()) for endpoint in site.registry.endpoints}
    assert {(path, method) for path, method, _ in operations(made)} == expected
    ids = [operation["operationId"] for _, _, operation in operations(made)]
    assert len(set(ids)) == len(ids) >= 40


def test_every_answer_has_an_example_that_fits(made):
    for path, method, operation in operations(made):
        [status] = [status for status in operation["responses"] if status.startswith("2")]
        content = operation["responses"][status]["content"]["application/json"]
        assert content["example"] is not None, (path, method)
        check(made, content["example"], content["schema"])


def test_every_body_has_an_example_that_fits(made):
    for path, method, operation in operations(made):
        if "requestBody" in operation:
            for content in operation["requestBody"]["content"].values():
                assert content["example"] is not None, (path, method)
                check(made, content["example"], content["schema"])


def test_every_error_has_an_example_that_fits(made):
    for response in made["components"]["responses"].values():
        content = response["content"]["application/json"]
        check(made, content["example"], content["schema"])
    for path, _, operation in operations(made):
        statuses = set(operation["responses"])
        assert "400" in statuses
        assert ("404" in statuses) >= ("{" in path), path
        assert ({"401", "403"} <= statuses) == bool(operation["x-roles"]) or "security" in operation
        assert ({"413", "415"} <= statuses) == ("requestBody" in operation)


def test_every_path_parameter_is_declared(made):
    for path, _, operation in operations(made):
        declared = {found["name"] for found in operation.get("parameters", ()) if found["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_open_endpoints_ask_for_no_key_and_all_others_do(made):
    for path, _, operation in operations(made):
        assert (operation.get("security") == []) == (not operation["x-roles"]), path
    assert made["security"] == [{"bearer": []}, {"x-api-key": []}, {"api-key": []}]


def test_every_reference_leads_somewhere_and_every_component_is_used(made):
    used = set(references(made))
    for reference in used:
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in made["components"][kind]
    for name in made["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in used, name
        assert re.fullmatch(r"[A-Za-z0-9]+", name), "two types of one name"


def test_a_parameter_of_the_query_is_never_null(made):
    for _, _, operation in operations(made):
        for parameter in operation.get("parameters", ()):
            assert "null" not in str(parameter["schema"]).lower()


async def test_the_document_is_for_administrators_alone(site):
    served = await site.get("/openapi.json")
    assert (served["openapi"], served["info"]["version"]) == ("3.1.0", "1.2.3")
    assert "/v1/chat/completions" not in served["paths"]
    user = site.make_user()
    for key in (site.make_key(None, Role.VIEWER), site.make_key(user.id)):
        assert (await site.refused("GET", "/openapi.json", key=key))[0] == 403
