"""TensorZero's Rust gateway as its wheel carries it: an HTTP server inside this process, on a port of its own choice.

python tensorzero_gateway.py CONFIG PORT_FILE
"""

import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlparse

from tensorzero import _start_http_gateway

gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
Path(sys.argv[2]).write_text(str(urlparse(str(gateway.base_url)).port))
signal.pause()
