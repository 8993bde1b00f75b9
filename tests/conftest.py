"""Fixtures that several test files share."""

import os
import signal

# One thread here and in every process that a test starts: sums taken in another order differ in
# their last bit, and some tests compare bits. Before torch is imported, since it reads it then.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from tiny_models import build_tiny_bert
from tiny_runs import build_tiny_run

from fusion.model.folder import export

# A job in the background of a shell is deaf to Ctrl-C, and so are its children; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """Folder of a tiny BERT that ends in Normalize and has prompts."""
    return build_tiny_bert(
        tmp_path_factory.mktemp("tiny"), prompts={"query": "query : ", "document": "passage : "}
    )


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory):
    """Folder of another tiny BERT: another width, CLS pooling, no prompts."""
    return build_tiny_bert(tmp_path_factory.mktemp("other"), dim=24, pooling="cls", seed=1)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Folder of an exported tiny model, to read only."""
    root = tmp_path_factory.mktemp("models")
    export(build_tiny_run(root / "encoders"), root / "tiny")
    return root / "tiny"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the person's own store, and none looks for a hub."""
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("FUSION_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
