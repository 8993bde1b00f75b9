import errno
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from fusion import locks
from fusion.errors import FusionError
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.text import load_encoder
from fusion.inputs.store import shelf as shelf_module
from fusion.inputs.store.store import Store
from fusion.inputs.store.stored import check_embeddings
from fusion.paths import default_root


class Counter:
    """An encoder that remembers what it was asked for; embeddings are made from the text."""

    name, dim = "counter", 3

    def __init__(self, fingerprint=None, seconds=0.0):
        self.asked = []
        self.fingerprint = fingerprint or {"source": "counter"}
        self.seconds = seconds

    def encode(self, texts, role, ids=None, advance=None):
        time.sleep(self.seconds)
        self.asked += texts
        return np.array([[len(t), sum(t.encode()) % 97, 1] for t in texts], dtype=np.float32)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(shelf_module, "CHUNK", 4)


def texts(count):
    return [f"text number {row}" for row in range(count)]


def shards(root):
    return {path.name: path.read_bytes() for path in root.rglob("*.npy")}


def test_embeddings_come_back_in_order_and_nothing_is_computed_twice(tmp_path):
    encoder = Counter()
    wanted = ["text number 0", *texts(10), *texts(3)]  # twice in one chunk, and later again
    first = Store(tmp_path).embed(encoder, wanted, Role.DOCUMENT)
    assert sorted(encoder.asked) == sorted(texts(10))  # each of the equal texts once
    assert np.array_equal(first, Counter().encode(wanted, Role.DOCUMENT))
    again = Store(tmp_path).embed(encoder, wanted[::-1], Role.DOCUMENT)
    assert len(encoder.asked) == 10
    assert np.array_equal(again, first[::-1])


def test_only_new_texts_are_computed(tmp_path):
    Store(tmp_path).embed(Counter(), texts(5), Role.DOCUMENT)
    encoder = Counter()
    Store(tmp_path).embed(encoder, texts(9), Role.DOCUMENT)
    assert encoder.asked == texts(9)[5:]


def test_whatever_an_embedding_depends_on_is_part_of_the_key(tmp_path):
    base = {"source": "m", "dtype": "float32", "query_prompt": "q: ", "document_prompt": ""}
    Store(tmp_path).embed(Counter(base), texts(2), Role.DOCUMENT)
    for other in (
        {**base, "dtype": "bfloat16"},
        {**base, "source": "n"},
        {**base, "document_prompt": "p: "},
    ):
        encoder = Counter(other)
        Store(tmp_path).embed(encoder, texts(2), Role.DOCUMENT)
        assert len(encoder.asked) == 2
    queries = Counter(base)
    Store(tmp_path).embed(queries, texts(2), Role.QUERY)  # another prompt
    assert len(queries.asked) == 2
    unchanged = Counter({**base, "query_prompt": "another: "})  # documents do not depend on it
    Store(tmp_path).embed(unchanged, texts(2), Role.DOCUMENT)
    assert not unchanged.asked


def test_shards_depend_on_the_input_alone(tmp_path):
    Store(tmp_path / "a").embed(Counter(), texts(10), Role.DOCUMENT)
    Store(tmp_path / "b").embed(Counter(), texts(4), Role.DOCUMENT)
    Store(tmp_path / "b").embed(Counter(), texts(10), Role.DOCUMENT)
    assert shards(tmp_path / "a") == shards(tmp_path / "b")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_shard_is_named_and_computed_again(tmp_path, damage, caplog):
    whole = Store(tmp_path).embed(Counter(), texts(10), Role.DOCUMENT)
    path = sorted(tmp_path.rglob("*.npy"))[1]
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content) if damage == "flipped" else bytes(content[:-5]))
    encoder = Counter()
    again = Store(tmp_path).embed(encoder, texts(10), Role.DOCUMENT)
    assert path.name in caplog.text
    assert 0 < len(encoder.asked) <= 4
    assert np.array_equal(again, whole)


def _embed(root, count, seconds=0.05):
    Store(root).embed(Counter(seconds=seconds), texts(count), Role.DOCUMENT)


def test_killed_run_leaves_whole_shards_and_the_next_one_goes_on(tmp_path):
    _embed(tmp_path / "calm", 40, seconds=0)
    root = tmp_path / "killed"
    context = multiprocessing.get_context("fork")
    for delay in (0.12, 0.2):
        process = context.Process(target=_embed, args=(root, 40))
        process.start()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert 0 < len(shards(root)) < 10
    _embed(root, 40, seconds=0)
    assert shards(root) == shards(tmp_path / "calm")
    assert not list(root.rglob("partial-*")) or len(list(root.rglob("partial-*"))) <= 2


class Logger(Counter):
    """Notes every text that it embeds in a file that processes share."""

    def __init__(self, path):
        super().__init__(seconds=0.02)
        self.path = path

    def encode(self, texts, role, ids=None, advance=None):
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{text}\n" for text in texts))
        return super().encode(texts, role)


def _embed_and_log(root, log):
    Store(root).embed(Logger(log), texts(40), Role.DOCUMENT)


def test_two_processes_lose_nothing_and_duplicate_nothing(tmp_path):
    _embed(tmp_path / "calm", 40, seconds=0)
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log.txt"
    both = [context.Process(target=_embed_and_log, args=(tmp_path / "two", log)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert shards(tmp_path / "two") == shards(tmp_path / "calm")
    assert sorted(log.read_text(encoding="utf-8").splitlines()) == sorted(texts(40))


def test_texts_that_are_cut_are_counted_also_out_of_the_store(tmp_path, tiny_encoder, caplog):
    encoder = load_encoder(str(tiny_encoder), "float32", "cpu")
    lengths = [5, 27, 28, 29, 40, 90]  # words that are tokens; a prompt of two, and two around
    docs = ["cat " * n for n in lengths]
    words = f"3 of 6 texts were cut at 32 tokens by {encoder.name}; median 44"
    for store in (Store(tmp_path), Store(tmp_path)):  # computed, then read
        caplog.clear()
        embeddings = store.embed(encoder, docs, Role.DOCUMENT)
        store.embed(encoder, docs, Role.DOCUMENT)
        assert [record.message for record in caplog.records] == [words]
    plain = np.stack([encoder.encode([text], Role.DOCUMENT)[0] for text in docs])
    assert np.allclose(embeddings, plain, atol=1e-5)
    caplog.clear()
    Store(tmp_path).embed(encoder, docs[:2], Role.DOCUMENT)
    assert not caplog.records
    Store(tmp_path).embed(encoder, docs, Role.QUERY)
    assert "3 of 6 queries were cut" in caplog.text


def test_shards_that_know_no_lengths_are_read(tmp_path, tiny_encoder, caplog):
    encoder = load_encoder(str(tiny_encoder), "float32", "cpu")
    docs = ["cat " * n for n in (5, 50)]
    wanted = Store(tmp_path).embed(encoder, docs, Role.DOCUMENT)
    [path] = tmp_path.rglob("[!p]*.npy")
    records = np.load(path)
    old = records[["hash", "embedding"]].astype(
        [(n, records.dtype[n]) for n in ("hash", "embedding")]
    )
    path.unlink()
    np.save(path.parent / "partial-x.npy", old)
    partial = path.parent / "partial-x.npy"
    partial.rename(path.parent / f"{shelf_module._checksum(partial)}.npy")
    caplog.clear()
    assert np.array_equal(Store(tmp_path).embed(encoder, docs, Role.DOCUMENT), wanted)
    assert not caplog.records
    Store(tmp_path).embed(encoder, [*docs, "dog " * 50], Role.DOCUMENT)
    assert "at least 1 of 3 texts were cut" in caplog.text


def test_a_store_on_a_disk_without_locks_is_used(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    found = Store(tmp_path).embed(Counter(), texts(10), Role.DOCUMENT)
    assert np.array_equal(found, Counter().encode(texts(10), Role.DOCUMENT))


@pytest.mark.parametrize(("value", "kind"), [(0.0, "zero"), (np.nan, "not finite")])
def test_embedding_without_direction_names_row_and_encoder(value, kind):
    rows = np.ones((4, 3), dtype=np.float32)
    rows[2] = value
    with pytest.raises(FusionError, match=rf"encoder 'm': the embedding of row 2 is {kind}"):
        check_embeddings(rows, "m", texts(4))


def test_full_disk_is_one_line_and_leaves_no_partial_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelf_module.np, "save", full)
    with pytest.raises(
        FusionError, match=r"No space left on device.*make room or set FUSION_CACHE"
    ):
        Store(tmp_path).embed(Counter(), texts(2), Role.DOCUMENT)
    assert not list(tmp_path.rglob("partial-*"))
    assert not shards(tmp_path)


def test_store_that_cannot_be_written_says_so(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder", encoding="utf-8")
    with pytest.raises(FusionError, match=r"cannot be written .*set FUSION_CACHE"):
        Store(blocked).embed(Counter(), texts(1), Role.DOCUMENT)


def test_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("FUSION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_root() == tmp_path / "x" / "fusion"
