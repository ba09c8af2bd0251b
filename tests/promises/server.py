"""Runs the command `infogan` many times in processes of their own without paying for the imports each time.

It imports what a training run needs, trains nothing, and forks for every request: a child is then a process that has
just been started, with the network of tests/tiny.py registered, and can be killed like any other. One JSON object a
line on stdin asks; one number a line on stdout answers: the child's process id, or, for `wait`, how it ended.
"""

import json
import os
import sys
import traceback
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import torch.utils.tensorboard  # noqa: F401  # what a run imports late

import infogan.session  # noqa: F401
import shards.loader
from infogan.networks import NETWORKS
from infogan.pictures import curves
from launch.cli import main

tiny = SourceFileLoader("tiny_network_of_tests", str(Path(__file__).resolve().parents[1] / "tiny.py")).load_module()
NETWORKS.register("tiny")(tiny.TinyNetwork)
curves(
    [{"kimg": 1, "loss/generator": 1, "loss/critic": 1, "mi/a": 1}], {"a": 1}
)  # so that matplotlib has read its fonts
for name in sys.argv[1:]:
    import_module(name)
shards.loader._BLOCK = 512  # positions worked out at once: with 64 images the usual 32,768 are 512 epochs


def become(request: dict[str, Any]) -> None:
    """Be the process that was asked for. `before`: Python that runs first, to break something in it."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    sys.argv = ["infogan", *request["arguments"]]
    exec(request["before"], {"__name__": "before"})
    main()


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                code = 1
                try:
                    become(request)
                except SystemExit as leaving:
                    code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
        print(answer, flush=True)


serve()
