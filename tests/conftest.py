"""What every test shares. Test files are not a package: their names are unique, and helpers are fixtures."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Before anything imports torch: bits depend on the number of threads, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that downloads is a test that fails on a compute node.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _helper(name: str) -> Any:
    """A module that lies beside this file."""
    spec = importlib.util.spec_from_file_location(f"{name}_of_tests", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for a cluster comes first, so that the other workers have something to do meanwhile."""
    items.sort(key=lambda item: "slurm_conf" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def tiny_network() -> type[Any]:
    """The class `TinyNetwork` of tests/tiny.py, not registered."""
    return _helper("tiny").TinyNetwork  # type: ignore[no-any-return]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Any]]:
    """Serves a folder by tests/faulty_server.py, with patience that is measured in fractions of a second."""
    from shards import transport

    monkeypatch.setattr(transport, "PATIENCE", transport.Patience(stall=1.0, first=0.01, longest=0.05, total=8.0))
    servers: list[Any] = []

    def start(root: Path, port: int = 0) -> Any:
        servers.append(_helper("faulty_server").FaultyServer(root, port))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def originals() -> Any:
    """The module tests/originals.py: `write(source, folder)` makes small raw data in its original format."""
    return _helper("originals")


@pytest.fixture(scope="session")
def small() -> Any:
    """The module tests/small_face_model.py: a head model of a few vertices."""
    return _helper("small_face_model")


@pytest.fixture(scope="session")
def make_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a data set of square pictures with one bright bar: upright ones are class `a`, level ones class `b`."""
    from shards import build, open_source

    def make(side: int = 8, colour: bool = False, images: int = 80, labels: bool = True, seed: int = 0) -> Path:
        raw = tmp_path_factory.mktemp("raw")
        draw = np.random.default_rng(seed)
        for number in range(images):
            picture = draw.integers(0, 60, (side, side, 3)).astype(np.uint8)
            at = draw.integers(side)
            picture[(slice(None), at) if number % 2 else at] = draw.integers(160, 256, 3)
            shown = picture if colour else picture[:, :, 0]
            path = raw / ("ab"[number % 2] if labels else "") / f"{number:04d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(shown).save(path)
        root = tmp_path_factory.mktemp("data") / f"bars{side}"
        source = open_source(
            "folder", path=str(raw), size=str(side), color="rgb" if colour else "grey", validation=0.1, test=0.1
        )
        build(source, root, shard_size=24, workers=1, progress=False)
        return root

    return make


@pytest.fixture(scope="session")
def tiny_data(make_data: Callable[..., Path]) -> Path:
    """64 training, 8 validation and 8 test images, 8x8 grey, two classes. Not to be changed: copy it to break it."""
    return make_data()
