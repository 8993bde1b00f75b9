"""Whatever a person types or hands over: a right result or one clear error, never a traceback."""

import argparse
import gzip
import io
import json
import os
import string
import struct

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fusion import evaluate, train
from fusion.errors import FusionError
from fusion.inputs.data.retrieval import read_beir
from fusion.inputs.data.texts import read_texts
from fusion.inputs.encoders.catalogue import Role
from fusion.inputs.encoders.precomputed import PrecomputedEncoder
from fusion.measure.retrieval.budget import choose
from fusion.measure.rows import Row
from fusion.runs.config import RunConfig
from fusion.space.blocks import Blocks
from fusion.space.compressors import FirstK, HeadCompressor, load_compressor
from fusion.space.head import FusionHead, HeadConfig
from fusion.space.training.recipe import check_dims
from fusion.terminal import int_list, parse, weight_list

FUZZ = settings(  # FUSION_FUZZ=10000 hunts for longer, and elsewhere each time
    max_examples=int(os.environ.get("FUSION_FUZZ", "100")),
    derandomize="FUSION_FUZZ" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["nan", "inf", "-1", "1e400", "auto", "0", "٣", "", "32,64", "1,,2"])
)
PLAIN = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALAR, inner, max_size=2),
    max_leaves=5,
)
TYPED = st.text("0123456789,.-+ eE_naif٣²", max_size=12) | st.text(max_size=8)


def refused(error, *words):
    """One message that says what it is about."""
    text = str(error)
    assert "Traceback" not in text
    assert any(word in text for word in words), text


@FUZZ
@given(TYPED)
def test_any_list_of_dims_is_read_or_refused(text):
    try:
        dims = int_list(text)
    except argparse.ArgumentTypeError as error:
        refused(error, "is not a list of integers")
        return
    assert list(dims) == [int(part) for part in text.split(",") if part.strip()]
    try:
        checked = check_dims(dims, 1000)
    except ValueError as error:
        refused(error, "dims")
    else:
        assert list(checked) == sorted(set(dims))
        assert 1 <= checked[0] <= checked[-1] <= 1000


@FUZZ
@given(TYPED)
@example("1e300,1")
@example("1e-300,1")
@example("nan,1")
def test_any_list_of_weights_is_read_or_refused(text):
    try:
        weights = weight_list(text)
    except argparse.ArgumentTypeError as error:
        refused(error, "is not a list of numbers")
        return
    names = ("a", "b")
    try:
        config = RunConfig(names, weights=weights)
        if weights != "auto":
            blocks = Blocks(names, (2, 2), weights=weights)
    except ValueError as error:
        refused(error, "weights")
        return
    assert config.weights == weights
    if weights not in ("auto", ()):
        fused = blocks.transform([np.ones((1, 2)), np.ones((1, 2))])
        assert np.isfinite(fused).all()
        assert [bool(column) for column in fused[0, ::2]] == [bool(weight) for weight in weights]


FLAGS = ["encoders", "normalize", "weights", "texts", "max-texts", "dims", "recipe", "epochs"]
FLAGS += ["encoder-dtype", "batch_size", "lr", "seed", "device", "devices", "resume", "strategy"]
FIELDS = ["epochs", "steps", "lr", "seed", "validation", "loss", "clip_norm", "pace", "nodes"]
FIELDS += ["temperature", "batch_size", "residual_width", "patience", "head", "precision"]
CONFIGS = st.dictionaries(st.sampled_from(FLAGS) | SCALAR, PLAIN | st.dates(), max_size=3)
TRAINS = st.dictionaries(st.sampled_from(FIELDS) | SCALAR, PLAIN, max_size=2)


def bad_usage(code, capsys):
    assert code == 2
    errors = capsys.readouterr().err
    assert len([line for line in errors.splitlines() if "error:" in line]) == 1


def resolved(text, folder, capsys):
    """The configuration out of a file, or None where it was refused as it should be."""
    path = folder / "config.yaml"
    path.write_bytes(text)
    try:
        options = parse(train._parser(), ["--config", str(path), "--output", "run"], ["output"])
    except SystemExit as stop:
        bad_usage(stop.code, capsys)
        return None
    for flag in ("output", "resume", "overwrite", "verbose"):
        options.pop(flag, None)
    try:
        return train.resolve(options)
    except (ValueError, FusionError) as error:
        refused(error, "")
        return None


@FUZZ
@given(config=CONFIGS, nested=st.none() | TRAINS)
@example(config={"dims": ["--help"]}, nested=None)
@example(config={"output": "-v"}, nested=None)
@example(config={}, nested={"batch_size": 2.5})
@example(config={}, nested={"seed": True})
@example(config={}, nested={"lr": float("inf")})
def test_any_config_is_resolved_or_refused(config, nested, tmp_path, capsys):
    if nested is not None:
        config = {**config, "train": nested}
    found = resolved(yaml.safe_dump(config, allow_unicode=True).encode(), tmp_path, capsys)
    if found is not None:
        again = RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(found.to_dict())))
        assert again == found
        assert isinstance(found.train.batch_size, int)
        assert np.isfinite(found.train.lr)


@FUZZ
@given(text=st.binary(max_size=40) | st.text(string.printable, max_size=40).map(str.encode))
@example(text=b"? [a]\n: b")
@example(text=b"a: &a [*a]")
@example(text=b"dims: 1_000\n1: 2")
@example(text=b"!!python/object/apply:os.system [ls]")
@example(text=b"[" * 3000)
@example(text=b"dims: [[1]]")
@example(text=b"seed: 1e999999999")
@example(text=b"seed: " + b"9" * 5000)
@example(text=b"\x00")
def test_any_bytes_as_a_config_are_resolved_or_refused(text, tmp_path, capsys):
    resolved(text, tmp_path, capsys)


LINES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={"_id": SCALAR, "title": SCALAR, "text": SCALAR, "metadata": PLAIN},
    ).map(lambda row: json.dumps(row, default=str).encode())
    | st.binary(max_size=20)
    | st.sampled_from([b'{"_id": "d", "text": "t"}', b'{"_id": "q", "text": "w"}', b"[" * 9999]),
    max_size=4,
)
QRELS = st.lists(
    st.tuples(SCALAR, SCALAR, SCALAR).map(lambda row: "\t".join(map(str, row)).encode())
    | st.binary(max_size=20)
    | st.sampled_from([b"q\td\t1", b"query-id\tcorpus-id\tscore", b"q\td\t1.0", b"\x00", b'"']),
    max_size=4,
)


@FUZZ
@given(corpus=LINES, queries=LINES, qrels=QRELS)
@example(
    corpus=[b'{"_id": "d", "text": "t"}'],
    queries=[b'{"_id": "q", "text": "w"}'],
    qrels=[b"q\td\t1"],
)
@example(
    corpus=[b'{"_id": "d", "text": "t", "title": 3}'],
    queries=[b'{"_id": "q", "text": "w"}'],
    qrels=[b"q\td\t" + b"9" * 5000],
)
@example(
    corpus=[b'{"_id": "d", "text": "t"}'],
    queries=[b'{"_id": "q", "text": ""}'],
    qrels=[b"q\td\t1\r" + b"x" * 200_000],
)
@example(
    corpus=[b'{"_id": "d", "text": "t"}'],
    queries=[b'{"_id": "q", "text": "w"}'],
    qrels=[b"q\td\t" + b"9" * 40],
)
def test_any_beir_folder_is_read_or_refused(corpus, queries, qrels, tmp_path):
    (tmp_path / "qrels").mkdir(exist_ok=True)
    for name, lines in (
        ("corpus.jsonl", corpus),
        ("queries.jsonl", queries),
        ("qrels/test.tsv", qrels),
    ):
        (tmp_path / name).write_bytes(b"\n".join(lines))
    try:
        data = read_beir(tmp_path, "test")
    except FusionError as error:
        refused(error, str(tmp_path), tmp_path.name)
        return
    assert data.doc_ids == sorted(set(data.doc_ids), reverse=True)
    assert all(data.documents)
    assert set(data.query_ids) == set(data.qrels)
    relevances = [value for judged in data.qrels.values() for value in judged.values()]
    assert all(isinstance(value, int) and abs(value) <= 2**31 for value in relevances)
    assert len(data.exclude) == len(data.queries) > 0


@FUZZ
@given(
    content=LINES.map(b"\n".join) | st.binary(max_size=60) | st.text(max_size=30).map(str.encode),
    suffix=st.sampled_from([".txt", ".jsonl", ".jsonl.gz", ".txt.gz"]),
    zipped=st.booleans(),
)
@example(content=b'{"text": "a\\ud800"}', suffix=".jsonl", zipped=False)
@example(content=b'{"text": "a", "id": {"b": 1}}', suffix=".jsonl", zipped=False)
@example(content=b"\x1f\x8b\x08\x00junkjunkjunk", suffix=".jsonl.gz", zipped=False)
def test_any_file_of_texts_is_read_or_refused(content, suffix, zipped, tmp_path):
    path = tmp_path / f"texts{suffix}"
    path.write_bytes(gzip.compress(content) if zipped else content)
    try:
        texts = read_texts(path)
    except FusionError as error:
        refused(error, str(path))
        return
    assert texts.texts
    assert len(texts.ids) == len(texts.texts)
    assert all(text.strip() == text != "" for text in texts.texts)
    assert all("".join(texts.texts).encode() for _ in [0])  # no half of a surrogate pair


def npy(header):
    text = header.encode("latin1", "replace")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


ARRAYS = st.sampled_from(
    [
        np.ones((2, 3), np.float32),
        np.ones((2, 3), np.int8),
        np.ones(2),
        np.float32(1),
        np.ones((0, 3)),
        np.ones((2, 0)),
        np.array([["a"], ["b"]]),
        np.ones((2, 3), complex),
        np.full((2, 3), np.inf),
        np.ones((2, 3), ">f8"),
        np.ones((2, 3, 1)),
        np.asfortranarray(np.ones((2, 3))),
    ]
)


def npy_of(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


MATRICES = (
    ARRAYS.map(npy_of)
    | st.binary(max_size=30)
    | st.builds(
        "{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}\n".format,
        st.sampled_from(["<f4", "<f8", "|O", "<U9", "x", "<f999", "[('a', 'f4')]"]),
        st.sampled_from(["False", "True", "0", "open('x')"]),
        st.sampled_from(
            ["(2, 3)", "(2,)", "()", "(-1, 3)", "(2, 10**9)", "(9**99, 3)", "3", "(2.5, 3)"]
        ),
    ).map(npy)
)
HEADERS = st.dictionaries(
    st.sampled_from(["embeddings", "other", "__metadata__"]),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "F8_E4M3", "x"]) | SCALAR,
            "shape": st.sampled_from([[2, 3], [2], [], [-1, 3], [2, 2**62], [2.5]]) | PLAIN,
            "data_offsets": st.sampled_from([[0, 24], [0, 12], [12, 24], [24, 0], [0, 2**63]]),
        },
    )
    | PLAIN,
    max_size=2,
).map(lambda header: json.dumps(header, default=str).encode())
TENSORS = (
    st.builds(
        lambda h, size: struct.pack("<Q", size or len(h)) + h + bytes(24),
        HEADERS,
        st.sampled_from([0, 0, 2, 2**40, 2**63]),
    )
    | ARRAYS.filter(lambda a: a.dtype.kind in "fi").map(
        lambda a: save({"embeddings": np.ascontiguousarray(a)})
    )
    | st.binary(max_size=30)
)


@FUZZ
@given(
    content=st.tuples(st.just(".npy"), MATRICES) | st.tuples(st.just(".safetensors"), TENSORS),
    ids=st.sampled_from([b"a\nb", b"a\nb\n", b"a", b"", b"a\na", b"\xff\nb", b"a\r\nb\r\n"]),
)
@example(content=(".npy", npy_of(np.ones((2, 3)))), ids=b"a\nb")
@example(content=(".safetensors", save({"embeddings": np.ones((2, 3), np.float16)})), ids=b"a\nb")
@example(content=(".safetensors", save({"other": np.ones((2, 3))})), ids=b"a\nb")
def test_any_precomputed_embeddings_are_read_or_refused(content, ids, tmp_path):
    suffix, data = content
    path = tmp_path / f"e{suffix}"
    path.write_bytes(data)
    (tmp_path / "e.ids.txt").write_bytes(ids)
    try:
        encoder = PrecomputedEncoder.open(f"file:{path}")
        found = encoder.encode(["x", "y"], Role.DOCUMENT, ["b", "a"])
    except FusionError as error:
        refused(error, "file:", "e.ids.txt")
        return
    assert found.dtype == np.float32
    assert found.shape == (2, encoder.dim)


CHANGES = st.dictionaries(
    st.sampled_from(["name", "in_dim", "out_dim", "dims", "train", "head", "columns"]),
    PLAIN,
    max_size=2,
)


@pytest.fixture(scope="module")
def compressors(tmp_path_factory):
    """Tensors and configuration of two compressors."""
    from safetensors import safe_open

    folder, found = tmp_path_factory.mktemp("compressors"), []
    head = HeadCompressor((2, 4), head=FusionHead(HeadConfig.linear(6, 4)))
    for number, compressor in enumerate((FirstK(4).fit(np.ones((3, 6))), head)):
        compressor.save(folder / str(number))
        with safe_open(folder / str(number), framework="numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            found.append((tensors, json.loads(file.metadata()["fusion.compressor"])))
    return found


@FUZZ
@given(which=st.integers(0, 1), changes=CHANGES, lost=st.booleans())
def test_any_compressor_is_read_or_refused(compressors, which, changes, lost, tmp_path):
    tensors, config = compressors[which]
    header = json.dumps({**config, **changes}, default=str)
    path = tmp_path / "c.safetensors"
    path.write_bytes(save({} if lost else tensors, metadata={"fusion.compressor": header}))
    try:
        compressor = load_compressor(path)
    except FusionError as error:
        refused(error, str(path))
        return
    assert not lost
    assert compressor.transform(np.ones((2, compressor.in_dim))).shape == (2, compressor.out_dim)


@FUZZ
@given(data=st.data())
def test_any_budget_is_filled_or_refused(data):
    sizes = data.draw(st.lists(st.integers(1, 4096), min_size=1, max_size=5, unique=True))
    budget = data.draw(st.sampled_from([4 * size for size in sizes]) | st.integers())

    def row(method, dim, score):
        scores = {"ndcg_at_10": score, "ndcg_at_10_ci95": (score, score), "recall_at_100": 1.0}
        per_query = np.array([score, score], dtype=np.float64)
        return Row(
            "d",
            "test",
            method,
            dim,
            "float32",
            4 * dim,
            0,
            **scores,
            queries=2,
            per_query=per_query,
        )

    rows = [row("pca", dim, 0.5) for dim in sizes] + [row("concat", 5000, 0.6)]
    try:
        chosen = choose(rows, rows, budget)
    except FusionError as error:
        refused(error, f"within {budget} bytes")
        smallest = 4 * min(sizes)
        assert budget < smallest
        return
    assert chosen.confirmed.bytes_per_vector == 4 * min(sizes) <= budget  # equal scores: smaller


@pytest.mark.parametrize("typed", ["x", "1.5", "", "9" * 5000, "-1", "0", "nan", "٣"])
def test_a_budget_that_is_none_is_refused(typed, tmp_path, capsys):
    arguments = [str(tmp_path / "run"), "--budget", typed, "--output", str(tmp_path / "out")]
    try:
        code = evaluate.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code in (1, 2)
    errors = capsys.readouterr().err
    assert len([line for line in errors.splitlines() if "error:" in line]) == 1
    assert not (tmp_path / "out").exists()
