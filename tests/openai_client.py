"""OpenAI's client for a gateway of a test."""

from openai import AsyncOpenAI

from tests.gateway_process import ADMIN_KEY, GatewayProcess

HELLO = [{"role": "user", "content": "Hello"}]


def client_of(gateway: GatewayProcess, key: str = ADMIN_KEY, **options) -> AsyncOpenAI:
    options = {"max_retries": 0, "timeout": 60, **options}
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, **options)


async def new_key(gateway: GatewayProcess, *options: str) -> str:
    created = await gateway.run("keys", "create", "test", *options)
    assert created.code == 0, created.errors
    return created.output.strip()


async def text_of(stream) -> str:
    return "".join([part.choices[0].delta.content or "" async for part in stream])
