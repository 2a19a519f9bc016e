"""The child process of a slot: one llama.cpp server out of the wheel `xllamacpp`.

Started as a module with nothing on its command line. The first line of standard input is a JSON object (`Orders` in
`llama_cpp.py`, the key inside); when the server listens, one JSON line goes to standard output; everything that
llama.cpp prints goes to standard error. Imports only the standard library and one light sibling: it starts in 0.1 s.
"""

import json
import os
import signal
import sys
from typing import Any

from stellwerk.engines.parent_death import die_with_parent, wait_for_parent

EXIT_NOT_LOADED = 3

_FLASH_ATTENTION = {
    "auto": "LLAMA_FLASH_ATTN_TYPE_AUTO",
    "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED",
}


def parameters(orders: dict[str, Any]) -> Any:
    """The orders as llama.cpp's own parameters."""
    import xllamacpp  # noqa: PLC0415 — 100 MB of native code; the gateway imports this module's constants without it

    p = xllamacpp.CommonParams()
    p.model.path = orders["model"]
    p.model_alias = {orders["alias"]}
    p.hostnames = [orders["host"]]
    p.port = orders["port"]
    p.api_keys = [orders["key"]]
    p.n_ctx = orders["context"]
    p.n_batch = orders["batch"]
    p.n_ubatch = orders["micro_batch"]
    p.n_parallel = orders["parallel"]
    p.kv_unified = True
    p.n_gpu_layers = orders["gpu_layers"]
    p.cpuparams.n_threads = orders["threads"]
    p.cpuparams_batch.n_threads = orders["threads"]
    p.n_threads_http = orders["http_threads"]
    p.cache_ram_mib = orders["cache_ram_mib"]
    p.flash_attn_type = xllamacpp.llama_flash_attn_type[_FLASH_ATTENTION[orders["flash_attention"]]]
    if orders["mlock"]:
        p.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP_MLOCK
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{orders['kv_cache'].upper()}"]
    if orders["mmproj"]:
        p.mmproj.path = orders["mmproj"]
    p.embedding = orders["embedding"]
    if orders["pooling"]:
        p.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{orders['pooling'].upper()}"]
    p.endpoint_slots = True
    p.endpoint_props = False
    p.offline = True
    p.ui = False
    p.verbosity = 2
    return p


def main() -> None:
    # The server is never destroyed: its destructor waits for running generations and holds the interpreter meanwhile.
    # With the default action the kernel ends the process at once, whatever it is doing.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = json.loads(sys.stdin.buffer.readline())
    die_with_parent(orders["parent"])
    announcements = os.dup(1)
    os.dup2(2, 1)

    import xllamacpp  # noqa: PLC0415

    try:
        server = xllamacpp.Server(parameters(orders))
    except RuntimeError as error:
        # Says only that it failed; llama.cpp has written why to standard error.
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        os._exit(EXIT_NOT_LOADED)
    os.write(announcements, json.dumps({"ready": server.listening_address}).encode() + b"\n")
    wait_for_parent(orders["parent"])
    os._exit(0)


if __name__ == "__main__":
    main()
