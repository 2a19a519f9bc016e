"""Many files, one after the other, each in a real engine of its own. Run as a program.

The engine's library is loaded once and every trial is a fork of that process: twenty a second in place of two. Each
line of standard input is a JSON object (`Orders` of `llama_cpp.py` with `question` and `seconds`), each line of
standard output an answer: {"status": exit status or negative signal, "text": the last lines that the engine printed}.
"""

import json
import os
import resource
import select
import signal
import sys
import tempfile

import xllamacpp

from stellwerk.engines.llama_cpp_runner import parameters

SERVED, NOT_LOADED, TOO_LATE = 0, 3, 124
_MEMORY = 4 << 30
_KEPT = 1500


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        orders = json.loads(line)
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if child == 0:
                _try(orders, output.fileno())
            status = _wait(child, orders["seconds"])
            size = output.seek(0, 2)
            output.seek(max(0, size - _KEPT))
            text = output.read().decode("utf-8", "replace")
        print(json.dumps({"status": status, "text": text}), file=answers, flush=True)


def _wait(child: int, seconds: float) -> int:
    descriptor = os.pidfd_open(child)
    ended, _, _ = select.select([descriptor], [], [], seconds)
    os.close(descriptor)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if ended else TOO_LATE


def _try(orders: dict, output: int) -> None:
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["GGML_NO_BACKTRACE"] = "1"
        try:
            server = xllamacpp.Server(parameters(orders))
        except RuntimeError as error:
            print(error, flush=True)
            os._exit(NOT_LOADED)
        ask = server.handle_embeddings if orders["embedding"] else server.handle_chat_completions
        ask(orders["question"])
        os._exit(SERVED)
    except BaseException as error:  # noqa: BLE001 — a fork must never return into its parent's loop
        print(repr(error), flush=True)
        # A request that fails is none of a file's business: over HTTP it is an answer.
        os._exit(SERVED)


if __name__ == "__main__":
    main()
