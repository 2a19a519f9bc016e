import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stellwerk.cli.gateway_client import GatewayClient
from stellwerk.cli.sigo_rest import FLAGS, prepare, variables
from stellwerk.config.reading import load
from tests.gateway_process import ALONE, end, environment_for, run_command, wait_until
from tests.real_engines import free_ports

COMMAND = Path(sys.executable).with_name("sigoREST")


@pytest.fixture
def environ(tmp_path):
    return environment_for(tmp_path, {"STELLWERK_DATA": str(tmp_path / "data")})


def test_the_documented_flags_are_all_there():
    assert {flag.name for flag in FLAGS} >= {"http-port", "https-port", "cert", "key", "v", "q", "j"}


def test_without_flags_only_the_listener_is_opened(environ):
    assert variables({}, environ) == {"STELLWERK_COMPAT": "[sigorest]"}


def test_flags_become_settings(environ, tmp_path):
    for name in ("server.crt", "server.key"):
        (tmp_path / name).touch()
    flags = {
        "http-port": 9081, "https-port": 9444, "v": "warn", "j": True,
        "cert": str(tmp_path / "server.crt"), "key": str(tmp_path / "server.key"),
    }  # fmt: skip
    config = load(None, environ | variables(flags, environ))
    assert config.compat == ("sigorest",)
    assert (config.sigorest.http_port, config.sigorest.https_port) == (9081, 9444)
    assert (config.log.level, config.log.format) == ("warning", "json")
    assert config.sigorest.certificate == str(tmp_path / "server.crt")
    assert config.sigorest.certificate_key == str(tmp_path / "server.key")


def test_a_port_for_the_lan_does_not_trust_the_lan(environ):
    assert load(None, environ | variables({"https-port": 9443}, environ)).sigorest.lan_trust is False


def test_what_is_configured_stays(environ, tmp_path):
    file = tmp_path / "stellwerk.yaml"
    file.write_text("compat: [sigorest]\nsigorest: {http_port: 9999, lan_trust: true}\nlog: {level: debug}\n")
    environ["STELLWERK_CONFIG"] = str(file)
    config = load(file, environ | variables({}, environ))
    assert (config.compat, config.sigorest.http_port, config.sigorest.lan_trust) == (("sigorest",), 9999, True)
    assert config.log.level == "debug"


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ({"v": "debug"}, "debug"),
        ({"v": "fatal"}, "error"),
        ({"v": "loud"}, "info"),
        ({"q": True}, "error"),
        ({"q": True, "v": "debug"}, "error"),
    ],
)
def test_levels_have_their_old_names(environ, flags, level):
    assert variables(flags, environ)["STELLWERK_LOG__LEVEL"] == level


def test_a_certificate_that_is_missing_is_left_to_the_gateway(environ, tmp_path, capsys):
    (tmp_path / "server.crt").touch()
    flags = {"cert": str(tmp_path / "server.crt"), "key": str(tmp_path / "server.key")}
    assert variables(flags, environ).keys() == {"STELLWERK_COMPAT"}
    assert "server.key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["-h"], 0), (["--help"], 0), (["-version"], 0), (["-x"], 2), (["-http-port", "many"], 2), (["-cert", "a"], 2)],
)
def test_it_ends_before_anything_is_started(arguments, status):
    before = dict(os.environ)
    assert prepare(arguments) == status
    assert dict(os.environ) == before


async def test_a_port_that_is_none_is_a_wrong_config(environ):
    done = await run_command("-http-port", "70000", environment=environ, program=(str(COMMAND),))
    assert done.code == 78
    assert "STELLWERK_SIGOREST__HTTP_PORT" in done.errors


def start(folder, environ, *flags):
    with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
        return subprocess.Popen([COMMAND, *flags], env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)


async def test_the_installed_command_serves_whom_it_trusts_and_keeps_the_sessions(environ, tmp_path, upstream):
    provider = {"base_url": upstream.url, "api_key": "", "models": ["m"]}
    models = {"fast": {"targets": ["up/m"]}}
    file = tmp_path / "stellwerk.yaml"
    file.write_text(json.dumps(ALONE | {"listen": {"port": 0}, "providers": {"up": provider}, "models": models}))
    environ["STELLWERK_CONFIG"] = str(file)
    port = free_ports()
    process = start(tmp_path, environ, f"-http-port={port}", "-v", "debug", "--j")
    try:
        await wait_until(lambda: b" answers on http://" in (tmp_path / "stdout").read_bytes())
        health = await asyncio.to_thread(GatewayClient(f"http://127.0.0.1:{port}").get, "/api/health")
        assert health["status"] == "ok"
        for question in ("One", "Two"):
            asking = ("ask", "--url", f"http://127.0.0.1:{port}", "-m", "fast", "-s", "proj", question)
            done = await run_command(*asking, environment=environ)
            assert (done.code, done.errors) == (0, "")
        # Those of the local user stand at the top of the folder.
        kept = tmp_path / "data" / ".sessions" / "fast-proj.json"
        await wait_until(lambda: kept.exists() and len(json.loads(kept.read_text())["history"]) == 4)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        end(process)
