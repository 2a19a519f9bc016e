import msgspec

from stellwerk.app.providers import Providers
from stellwerk.config.settings import Config, Discovery, Provider
from stellwerk.core.call import Operation, Wire
from stellwerk.providers.vendors import load_vendors
from stellwerk.routing import discovery as routing
from stellwerk.routing.catalogue import Catalogue
from tests.port_fakes import StillClock

VENDORS = load_vendors()
OLLAMA = "http://127.0.0.1:9"
OTHER = Provider(base_url="http://127.0.0.1:9/v1")


class NoEngines:
    def models(self):
        return []


def taking(pools, parked=None):
    providers = Providers(
        vendors=VENDORS,
        environ={},
        own_urls=[],
        pools=pools,
        engines=NoEngines(),
        ocr=lambda: None,
        clock=StillClock(),
        hide=lambda secret: None,
        price=lambda provider, model, published: published,
        registry=None,
        parked=parked,
    )
    discovery = routing.Discovery(Catalogue(), clock=StillClock())
    return providers, lambda config: providers.take(config, discovery)


async def test_an_ollama_speaks_its_own_api_and_others_do_not(pools):
    providers, take = taking(pools)
    take(Config(providers={"other": OTHER}, discovery=Discovery(ollama_url=OLLAMA)))
    wires = {name: each.wire(Operation.CHAT, Wire.OLLAMA_CHAT) for name, each in providers.by_name.items()}
    assert wires == {"ollama": Wire.OLLAMA_CHAT, "other": Wire.OPENAI_CHAT, "local": Wire.OPENAI_CHAT}


async def test_a_provider_stays_as_long_as_its_settings_do(pools):
    providers, take = taking(pools)
    config = Config(providers={"other": OTHER}, discovery=Discovery(ollama_url=OLLAMA))
    take(config)
    before = dict(providers.by_name)
    take(msgspec.structs.replace(config, providers={"other": Provider(base_url="http://127.0.0.1:7/v1")}))
    assert providers.by_name["ollama"] is before["ollama"]
    assert providers.by_name["other"] is not before["other"]
