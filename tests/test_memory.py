"""Embeddings stay on disk until a slice of them is read; none is copied whole."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.inputs.store import shelf as shelf_module
from fusion.inputs.store import store as store_module
from fusion.inputs.store.store import Store
from fusion.runs import fusing
from fusion.runs.fusing import fuse
from fusion.space.blocks import Blocks
from fusion.space.compressors import PCA
from fusion.space.training.batches import Subset
from fusion.space.training.fit import _Training
from fusion.space.training.plan import make_plan
from fusion.space.training.recipe import TrainConfig

ROWS, DIM = 120_000, 64
SIZE = 4 * ROWS * DIM


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    rng = np.random.default_rng(0)
    np.save(folder / "e.npy", rng.standard_normal((ROWS, DIM), dtype=np.float32))
    (folder / "e.ids.txt").write_text("\n".join(map(str, range(ROWS))), encoding="utf-8")
    return PrecomputedEncoder.open(f"file:{folder / 'e.npy'}")


@pytest.fixture
def allocated():
    """Peak of the memory that is allocated (mapped files are not) since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def fused(encoder, folder):
    ids = [str(row) for row in range(ROWS)]
    blocks = Blocks((encoder.name,), (DIM,))
    return fuse(blocks, [encoder], ids, Role.DOCUMENT, Store(folder), ids)


def test_large_fused_embeddings_are_mapped_and_equal(encoder, tmp_path, monkeypatch, allocated):
    held = fused(encoder, tmp_path)
    assert not isinstance(held, np.memmap)
    assert allocated() > SIZE
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    monkeypatch.setattr(fusing, "IN_MEMORY", SIZE - 1)
    mapped = fused(encoder, tmp_path)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, held)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))  # it has no name
    assert allocated() - before < 3 * 4 * 16_384 * DIM + 200 * ROWS  # slices, and the ids


def test_mapped_embeddings_are_trained_on_without_a_copy(encoder, allocated):
    mapped = encoder.tables[Role.DOCUMENT].embeddings
    assert isinstance(mapped, np.memmap)
    plan = make_plan(mapped, TrainConfig(steps=5), (8, 16))
    _Training(plan)  # fits the PCA that it starts from
    assert allocated() < 0.5 * SIZE


def test_a_full_disk_is_one_line_before_anything_is_fused(encoder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fusing, "IN_MEMORY", 0)
    monkeypatch.setattr(store_module.os, "posix_fallocate", full)
    with pytest.raises(FusionError, match=r"no room for 0\.0 GiB .* \(No space left on device\)"):
        fused(encoder, tmp_path)


def test_a_subset_is_fitted_as_its_copy():
    rows = np.arange(1, 300, 3)
    embeddings = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    subset = Subset(embeddings, rows)
    assert (subset.shape, subset.ndim, len(subset)) == ((100, 8), 2, 100)
    np.testing.assert_array_equal(
        PCA().fit(subset).matrix, PCA().fit(embeddings[rows].copy()).matrix
    )


class Letters:
    name, dim, fingerprint = "letters", 2, {"source": "letters"}

    def encode(self, texts, role, ids=None, advance=None):
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def test_the_store_is_read_by_slices_and_holds_no_file_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf_module, "CHUNK", 2)
    texts = ["x" * (row + 1) for row in range(60)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    stored = Store(tmp_path).open(Letters(), texts, Role.DOCUMENT)
    assert stored.shape == (60, 2)
    assert stored[10:13][:, 0].tolist() == [11, 12, 13]
    assert stored[:][:, 0].tolist() == list(range(1, 61))
    assert len(list(Path("/proc/self/fd").iterdir())) == before  # thirty shards


def test_a_bad_row_of_a_slice_has_its_own_number(tmp_path):
    class Zero(Letters):
        def encode(self, texts, role, ids=None, advance=None):
            return np.array([[text != "bad", 0] for text in texts], dtype=np.float32)

    stored = Store(tmp_path).open(Zero(), [*"abcdefg", "bad", "h"], Role.DOCUMENT)
    assert len(stored[:7]) == 7
    with pytest.raises(FusionError, match=r"embedding of row 7 is zero \(text 'bad'"):
        stored[5:]


def test_a_shard_that_cannot_be_opened_is_not_taken_for_damaged(tmp_path, monkeypatch):
    Store(tmp_path).embed(Letters(), ["a", "b"], Role.DOCUMENT)
    shards = list(tmp_path.rglob("*.npy"))

    def too_many(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(shelf_module, "_checksum", too_many)
    with pytest.raises(FusionError, match=r"cannot be read \(Too many open files\)"):
        Store(tmp_path).embed(Letters(), ["a", "b"], Role.DOCUMENT)
    assert list(tmp_path.rglob("*.npy")) == shards


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_safetensors_are_mapped(tmp_path, dtype):
    rows = np.arange(6, dtype=dtype).reshape(2, 3)
    tensors = {"another": np.ones(5, np.float16), "embeddings": rows, "z": np.ones(1)}
    save_file(tensors, tmp_path / "e.safetensors")
    (tmp_path / "e.ids.txt").write_text("a\nb\n", encoding="utf-8")
    encoder = PrecomputedEncoder.open(f"file:{tmp_path / 'e.safetensors'}")
    assert isinstance(encoder.tables[Role.QUERY].embeddings, np.memmap)
    found = encoder.encode(["", ""], Role.QUERY, ["b", "a"])
    assert found.tolist() == rows[::-1].tolist()
    (tmp_path / "e.ids.txt").write_text("a\na\n", encoding="utf-8")
    with pytest.raises(FusionError, match="holds the id 'a' twice"):
        PrecomputedEncoder.open(f"file:{tmp_path / 'e.safetensors'}")


def test_a_dtype_that_numpy_lacks_is_named(tmp_path):
    save_file({"embeddings": np.ones((1, 3), np.int8)}, tmp_path / "e.safetensors")
    (tmp_path / "e.ids.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(FusionError, match="its dtype is I8; save it as one of F64, F32, F16"):
        PrecomputedEncoder.open(f"file:{tmp_path / 'e.safetensors'}")
