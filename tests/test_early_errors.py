"""A mistake is told in no time: before torch, which takes seconds, is imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from fusion.model import place
from fusion.model.modules import settings
from fusion.runs.config import RunConfig
from fusion.space.blocks import Blocks
from fusion.space.training.losses import LOSSES
from fusion.space.training.recipe import TrainConfig

DOOR = """
import sys
from fusion.{door} import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print(code, *({{"torch", "lightning", "matplotlib", "transformers"}} & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory, model):
    """A folder to make mistakes in: texts, data, embeddings, a model, a run without weights."""
    root = tmp_path_factory.mktemp("here")
    (root / "t.txt").write_text("one text\nanother text\n", encoding="utf-8")
    (root / "bad.jsonl").write_text("{\n", encoding="utf-8")
    (root / "empty").mkdir()
    (root / "begun").mkdir()
    (root / "begun" / "_progress.jsonl").write_text("{}\n", encoding="utf-8")
    (root / "broken").mkdir()
    (root / "broken" / "_manifest.json").write_text("{", encoding="utf-8")
    (root / "q.jsonl").write_text('{"text": "a"}\n{"text": 7}\n', encoding="utf-8")
    (root / "none.txt").write_text("\n", encoding="utf-8")
    for name, model_path in (("lost", "/no/such/model"), ("other", str(root / "model"))):
        shards = root / name
        shards.mkdir()
        manifest = {"format": 1, "model_path": model_path, "rows": 0, "rejected": 0, "shards": []}
        manifest["settings"] = {"model": "0" * 64, "width": 8, "precision": "int8"}
        (shards / "_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (root / "t.csv").write_text("id,body\n1,one\n", encoding="utf-8")
    (root / "wide.md").write_text("# one", encoding="utf-16")
    (root / "twice").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (root / "twice" / name).write_text('{"id": 1, "text": "one"}\n', encoding="utf-8")
    (root / "list.yaml").write_text("- 1\n", encoding="utf-8")
    (root / "model").symlink_to(model)
    np.save(root / "api.npy", np.ones((2, 8), np.float32))
    (root / "api.ids.txt").write_text("1\n2\n", encoding="utf-8")
    (root / "data" / "qrels").mkdir(parents=True)
    (root / "data" / "corpus.jsonl").write_text('{"_id": "d", "text": "a"}\n', encoding="utf-8")
    (root / "data" / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n', encoding="utf-8")
    (root / "data" / "qrels" / "test.tsv").write_text("q\td\t1\n", encoding="utf-8")
    (root / "run").mkdir()
    name = f"file:{root / 'api.npy'}"
    config = RunConfig((name,), texts=str(root / "t.txt"), dims=(4, 8)).to_dict()
    config["blocks"] = Blocks((name,), (8,)).to_dict()
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (root / "run" / "environment.json").write_text(json.dumps({}), encoding="utf-8")
    return root


def told(here, door, words):
    """Exit code, libraries that were loaded, and the error's line."""
    done = subprocess.run(
        [sys.executable, "-c", DOOR.format(door=door), *words.split()],
        capture_output=True, text=True, cwd=here, check=True,
    )  # fmt: skip
    code, *loaded = done.stdout.split("\n")[-2].split()
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1, done.stderr
    return int(code), loaded, errors[0]


API = "--encoders file:api.npy"


@pytest.mark.parametrize(
    ("door", "words", "code", "message"),
    [
        ("train", f"{API} --texts no.txt --output r", 1, "texts 'no.txt' not found"),
        ("train", f"{API} --texts t.txt,no.txt --output r", 1, "texts 'no.txt' not found"),
        ("train", f"{API} --texts data:no --output r", 1, "data 'no' not found"),
        ("train", f"{API} --texts bad.jsonl --output r", 1, "bad.jsonl:1: not JSON"),
        ("train", f"{API} --texts api.npy --output r", 1, "api.npy is of no known kind"),
        ("train", "--encoders bge-smal --texts t.txt --output r", 1, "is not a known name"),
        ("train", "--encoders bge-small --texts t.txt --output r", 1, "hub cannot be reached"),
        ("train", "--encoders ./no/such --texts t.txt --output r", 1, "'./no/such' is not a known"),
        ("train", "--encoders empty --texts t.txt --output r", 1, "no modules.json"),
        ("train", "--encoders file:no.npy --texts t.txt --output r", 1, "not an existing .npy"),
        ("train", f"{API} --dims 8,4 --texts t.txt --output r", 2, "dims must increase, got 8,4"),
        ("train", f"{API} --dims 4,9 --texts t.txt --output r", 2, "dims go up to 9"),
        ("train", f"{API} --dims 4,x --texts t.txt --output r", 2, "not a list of integers"),
        ("train", f"{API} --loss hinge --texts t.txt --output r", 2, "loss must be one of mse, kl"),
        ("train", f"{API} --texts t.txt --output run", 1, "use --overwrite or --resume"),
        ("train", f"{API} --texts t.txt --output run --resume", 1, "train.seed: 0 there, 3 now"),
        ("train", f"{API} --colour red --output r", 2, "unrecognized arguments: --colour red"),
        ("train", "--config no.yaml --output r", 2, "--config no.yaml cannot be read"),
        ("train", "--config list.yaml --output r", 2, "must map flags to values"),
        ("evaluate", "no --output r", 1, "no is not a run folder"),
        ("evaluate", "empty --output r", 1, "empty is not a run folder"),
        ("evaluate", "run --data no --output r", 1, "data 'no' not found"),
        ("evaluate", "run --data data --split dev --output r", 1, "qrels/ holds test.tsv"),
        ("evaluate", "run --data data --dims 9 --output r", 2, "dims go up to 9"),
        ("evaluate", "run --data data --methods pcaa --output r", 2, "'pcaa' is unknown"),
        ("evaluate", "run --data data --precisions int7 --output r", 2, "'int7' is unknown"),
        ("evaluate", "run --data data --budget 8 --output r", 1, "has a dev or train split"),
        ("evaluate", "run --data data --output run", 1, "use --overwrite"),
        ("evaluate", "model --data data --dims 99 --output r", 2, "dims go up to 99"),
        ("evaluate", "model --data data --budget 9 --output r", 2, "leave it out, or name the run"),
        ("export", "no --output r", 1, "no is not a run folder"),
        ("export", "run --output run", 1, "use --overwrite"),
        ("export", "run --output r --results no.json", 1, "no.json is no results.json"),
        ("export", "run --output r --compressor lda", 2, "invalid choice: 'lda'"),
        ("encode", "no --input t.txt --output r", 1, "no is neither a folder nor a model"),
        ("encode", "run --input t.txt --output r", 1, "run is a run, not a model"),
        ("encode", "empty --input t.txt --output r", 1, "empty is no exported model"),
        ("encode", "model --input no --output r", 1, "--input no: no such file"),
        ("encode", "model --input t.txt --output run", 1, "use --overwrite or --resume"),
        ("encode", "model --input t.txt --output r --truncate-dim 99", 2, "from 1 to 24"),
        ("encode", "model --input t.txt --output r --chunk 99", 2, "chunk 99 is above the limit"),
        ("encode", "model --input t.txt --output r --chunk many", 2, "from 16 on, auto or none"),
        ("encode", "model --input empty --output r", 1, "empty: the folder is empty"),
        ("encode", "model --input bad.jsonl --output r", 1, "no row of the input can be encoded"),
        ("encode", "model --input t.csv --output r", 1, "no column text, but id, body"),
        ("encode", "model --input t.csv --text-fields body --id-field key --output r", 1,
         "no row has the field 'key'; fields that there are: id, body"),
        ("encode", "model --input twice --output r", 1, "both have a row with the id '1'"),
        ("train", f"{API} --texts t.csv --output r", 1, "no column text, but id, body"),
        ("train", f"{API} --texts empty --output r", 1, "empty: the folder is empty"),
        ("train", f"{API} --texts wide.md --output r", 1, "wide.md cannot be read: it is UTF-16"),
        ("train", f"{API} --texts t.txt --chunk 9 --output r", 2, "from 16 on, auto or none"),
        ("encode", "model --input t.txt --output r --batch-size 0", 2, "at least 1, got 0"),
        ("encode", "--output r", 2, "MODEL and --input must be given, or --from with shards"),
        ("encode", "model --output r", 2, "--input must be given, or --from with shards"),
        ("encode", "--from no --output r", 1, "no does not exist; python -m fusion.encode"),
        ("encode", "--from other --output r", 1, "holds int8 codes, from which no others can be"),
        ("encode", "--from other --output r --keep text", 2, "--keep is for texts that are"),
        ("encode", "model --input t.txt --output r --keep text,text", 2, "keep names one twice"),
        ("encode", "model --input t.txt --output r --keep id", 2, "which shards hold anyway"),
        ("search", "no --query a", 1, "no does not exist; python -m fusion.encode makes one"),
        ("search", "t.txt --query a", 1, "t.txt is a file, not a folder of shards"),
        ("search", "empty --query a", 1, "empty has no _manifest.json: no finished encoding"),
        ("search", "begun --query a", 1, "begun is an unfinished encoding: go on with"),
        ("search", "broken --query a", 1, "_manifest.json is damaged"),
        ("search", "lost --query a", 1, "/no/such/model is neither a folder nor a model"),
        ("search", "other --query a", 1, "other was encoded by another model than"),
        ("search", "other --query a --model empty", 1, "empty is no exported model"),
        ("search", "other --query a --model run", 1, "run is a run, not a model"),
        ("search", "other --query a -k 0", 2, "k must be at least 1, got 0"),
        ("search", "other --query a -k x", 2, "invalid int value: 'x'"),
        ("search", "other --query= ", 2, "--query is empty; say what to look for"),
        ("search", "other --query a --queries t.txt", 2, "--query and --queries both say"),
        ("search", "other --queries no.txt", 1, "--queries no.txt: no such file"),
        ("search", "other --queries none.txt", 1, "--queries none.txt holds no query"),
        ("search", "other --queries q.jsonl", 1, "q.jsonl:2: not text but int"),
        ("search", "other --queries bad.jsonl", 1, "bad.jsonl:1 is not JSON"),
        ("search", "other --queries api.ids.csv", 1, "--queries api.ids.csv: no such file"),
        ("search", "other --queries list.yaml", 1, "list.yaml is of no known kind"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_torch_is_loaded(here, door, words, code, message):
    if "--resume" in words:
        words += " --seed 3 --dims 4,8"
    found, loaded, line = told(here, door, words)
    assert message in line
    assert (found, loaded) == (code, [])
    assert not (here / "r").exists()


def test_names_that_stand_twice_to_be_light_are_the_same():
    assert place.MARK == settings.CONFIG
    for loss in LOSSES:
        TrainConfig(loss=loss, sentences=0)
    with pytest.raises(ValueError, match=f"loss must be one of {', '.join(LOSSES)}, got 'hinge'"):
        TrainConfig(loss="hinge")
