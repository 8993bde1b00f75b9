import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from fusion.errors import FusionError
from fusion.space.compressors import load_compressor
from fusion.space.training import fit as training
from fusion.space.training.batches import Queries
from fusion.space.training.distributed import gather_rows
from fusion.space.training.plan import make_plan
from fusion.space.training.ranks import is_first
from fusion.space.training.recipe import TrainConfig

DIMS = (4, 8, 16)


def make_embeddings(n=300):
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(n, 6)) @ rng.normal(size=(6, 24))
    return (signal + 0.5 * rng.normal(size=(n, 24)) + 0.5).astype(np.float32)


def make_queries():
    """Two parts of every text but each third, near their text."""
    owners = np.repeat([row for row in range(300) if row % 3], 2)
    noise = np.random.default_rng(1).normal(size=(len(owners), 24))
    return Queries((make_embeddings()[owners] + 0.3 * noise).astype(np.float32), owners)


FIT = """
import dataclasses, json, sys, logging
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from test_distributed import CASES, DIMS, make_embeddings, make_queries
from fusion.space.training.fit import TrainConfig, fit_head
logging.basicConfig(stream=sys.stdout, format="%(message)s")
real = TrainConfig.head_config
TrainConfig.head_config = lambda self, *dims: dataclasses.replace(
    real(self, *dims), batch_norm=self.temperature == 9)  # a field that the paper's loss ignores
for name, (recipe, changes) in CASES.items():
    heads = []
    for devices in (1, 2):
        where = {"devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto"}
        config = TrainConfig.of(recipe, **changes, **where, device="cpu")
        folder = Path(sys.argv[2]) / f"{name}-{devices}"
        queries = make_queries() if name == "queries" else None
        fitted = fit_head(make_embeddings(), config, DIMS, queries=queries, folder=folder)
        heads.append(fitted.state_dict())
    off = [(heads[0][k] - heads[1][k]).abs().max().item() for k in heads[0]]
    files = sorted(Path(sys.argv[2]).glob(f"{name}-*/metrics.csv"))
    losses = [[line.split(",") for line in path.read_text().splitlines()] for path in files]
    print(json.dumps({"name": name, "off": max(off), "losses": losses}), flush=True)
"""
CASES = {
    "fusion": ("fusion", {"steps": 12, "batch_size": 63}),  # an odd batch: unequal shares
    "queries": ("corpus", {"steps": 12, "batch_size": 63}),
    "corpus": ("corpus", {"steps": 12, "batch_size": 64}),
    "paper": ("paper", {"epochs": 3, "batch_size": 32}),
    "residual": ("fusion", {"steps": 6, "batch_size": 64, "residual_width": 8, "keep_start": 0.0}),
    "bfloat16": ("fusion", {"steps": 6, "batch_size": 64, "precision": "bf16-mixed"}),
    "batch-norm": ("paper", {"epochs": 1, "batch_size": 32, "temperature": 9}),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each case trained by one process and by two, in a fresh process that can be forked."""
    command = [sys.executable, "-c", FIT, Path(__file__).parent, tmp_path_factory.mktemp("fits")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {found["name"]: found for found in results} | {"said": done.stdout + done.stderr}


@pytest.mark.parametrize("case", ["fusion", "queries", "corpus", "paper", "residual"])
def test_two_processes_train_the_head_of_one(trained, case):
    assert trained[case]["off"] < 1e-5
    one, two = trained[case]["losses"]
    assert [line[:3] for line in one] == [line[:3] for line in two]
    losses = [[[float(x or 0) for x in line[3:]] for line in lines[1:]] for lines in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert len(losses[0]) >= 2


def test_half_precision_and_batch_norm_come_close(trained):
    assert 1e-5 < trained["bfloat16"]["off"] < 5e-3  # gradients of half a batch are rounded
    assert trained["batch-norm"]["off"] > 1e-4  # the disease: statistics of half a batch
    warning = "BatchNorm: each process on a CPU takes statistics of its own share of a batch"
    assert trained["said"].count(warning) == 1


def _gather(rank, world, total, path, out):
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=world
    )
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    rows = torch.arange(3.0 * total).view(total, 3).cos()
    gathered = gather_rows(rows[rank::world] @ weight.T, total)
    (gathered @ gathered.T).pow(2).sum().backward()
    distributed.all_reduce(weight.grad, op=distributed.ReduceOp.SUM)
    torch.save({"rows": gathered.detach(), "grad": weight.grad / world}, f"{out}-{rank}")
    distributed.destroy_process_group()


@pytest.mark.parametrize(("world", "total"), [(2, 5), (3, 7), (3, 3)])
def test_gathered_rows_and_gradients_are_those_of_one_process(world, total, tmp_path):
    arguments = (world, total, tmp_path / "meeting", tmp_path / "out")
    torch.multiprocessing.start_processes(
        _gather, args=arguments, nprocs=world, start_method="fork"
    )
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    alone = gather_rows(torch.arange(3.0 * total).view(total, 3).cos() @ weight.T, total)
    (alone @ alone.T).pow(2).sum().backward()
    for rank in range(world):
        found = torch.load(f"{tmp_path / 'out'}-{rank}", weights_only=True)
        torch.testing.assert_close(found["rows"], alone.detach())
        torch.testing.assert_close(found["grad"], weight.grad)


def test_the_first_process_is_found_in_the_environment(monkeypatch):
    several = TrainConfig.of("paper", devices=2)
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert is_first(several)
    for name, value, first in (
        ("LOCAL_RANK", "1", False),
        ("LOCAL_RANK", "0", True),
        ("NODE_RANK", "1", False),
        ("SLURM_PROCID", "0", True),
        ("RANK", "3", False),  # torchrun knows best
    ):
        monkeypatch.setenv(name, value)
        assert is_first(several) is first
    assert is_first(TrainConfig.of("paper"))  # one of many jobs, perhaps, but alone


def test_batches_do_not_depend_on_the_number_of_devices():
    plans = [
        make_plan(make_embeddings(), TrainConfig.of("paper", devices=devices, batch_size=32), DIMS)
        for devices in (1, 3)
    ]
    assert plans[0].identity == plans[1].identity
    assert plans[0].epoch_steps == plans[1].epoch_steps == 7
    with pytest.raises(ValueError, match="batch_size 5 is too small to share out over 3 devices"):
        make_plan(make_embeddings(), TrainConfig.of("paper", devices=3, batch_size=5), DIMS)


def test_batch_norm_is_synchronised_on_gpus(monkeypatch):
    class Asked(Exception):
        pass

    def trainer(**settings):
        raise Asked(settings)

    monkeypatch.setattr(training, "accelerator", lambda _: "cuda")
    monkeypatch.setattr(training.lightning, "Trainer", trainer)
    for devices in (1, 2):
        config = TrainConfig.of("paper", epochs=1, devices=devices, nodes=devices)
        with pytest.raises(Asked) as asked:
            training.fit_head(make_embeddings(), config, DIMS)
        settings = asked.value.args[0]
        assert (settings["devices"], settings["num_nodes"]) == (devices, devices)
        assert settings["sync_batchnorm"] is (devices > 1)


def test_devices_that_cannot_be_had_are_one_line():
    training.check_devices(TrainConfig.of("paper", devices=2, device="cpu"))
    for strategy in ("dpp", "deepspeed"):
        config = TrainConfig.of("paper", devices=2, strategy=strategy, device="cpu")
        with pytest.raises(
            FusionError, match=f"cannot train on devices=2, .*={strategy}: "
        ) as error:
            training.check_devices(config)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "variables",
    [
        "SLURM_NTASKS=4 SLURM_JOB_NAME=train",
        "SLURM_NTASKS=4 SLURM_NTASKS_PER_NODE=4 SLURM_PROCID=3 SLURM_LOCALID=3 SLURM_JOB_NAME=t",
        "SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 SLURM_JOB_NAME=train",  # nor a place in the job
        "RANK=3 LOCAL_RANK=2 WORLD_SIZE=4 LOCAL_WORLD_SIZE=4 TORCHELASTIC_RUN_ID=x",
        "LSB_JOBID=4 LSB_DJOB_RANKFILE=/nowhere JSM_NAMESPACE_LOCAL_RANK=1 JSM_NAMESPACE_SIZE=3",
        "NODE_RANK=1 LOCAL_RANK=1 OMPI_COMM_WORLD_RANK=2",
    ],
)
def test_a_training_on_one_device_takes_no_notice_of_a_launcher(monkeypatch, tmp_path, variables):
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    config = TrainConfig.of("paper", epochs=1, batch_size=32, device="cpu")
    training.check_devices(config)
    found = training.fit_head(make_embeddings(), config, DIMS, folder=tmp_path)
    assert found.config.out_dim == DIMS[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_launcher_that_does_not_fit_several_devices_is_one_line(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    config = TrainConfig.of("paper", devices=2, strategy="ddp", device="cpu")
    with pytest.raises(FusionError, match=r"cannot train on devices=2, .* You set `--ntasks=4`"):
        training.check_devices(config)


def test_two_processes_through_the_door(tmp_path):
    """They meet in one run folder, which only the first writes; and one process goes on with it."""
    np.save(tmp_path / "api.npy", make_embeddings())
    (tmp_path / "api.ids.txt").write_text("\n".join(str(row) for row in range(1, 301)))
    (tmp_path / "texts.txt").write_text("\n".join(f"text {row}" for row in range(300)))
    command = [sys.executable, "-m", "fusion.train", "--encoders", f"file:{tmp_path / 'api.npy'}"]
    command += ["--texts", str(tmp_path / "texts.txt"), "--dims", "4,8,16", "--epochs", "3"]
    command += ["--batch-size", "64", "--device", "cpu", "--output", str(tmp_path / "run")]
    several = ["--devices", "2", "--strategy", "ddp"]
    done = subprocess.run([*command, *several], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("recipe: ") == 1
    # A thread of torch's gloo says this at times as its process ends, when all is written.
    said = [line for line in done.stderr.splitlines() if not line.startswith("terminate called")]
    assert len(said) == len(set(said)) <= 2, done.stderr  # nothing is said twice
    assert said[-1].startswith("kept epoch ")
    two = run_files(tmp_path / "run")
    from fusion import train

    assert train.main([*command[3:-1], str(tmp_path / "one")]) == 0
    one = run_files(tmp_path / "one")
    assert sorted(one) == sorted(two)
    for name in ("pca.safetensors", "calibration.safetensors", "environment.json"):
        assert one[name] == two[name]
    heads = [load_compressor(tmp_path / name / "head.safetensors") for name in ("one", "run")]
    weights = [compressor.head.linear.weight.detach() for compressor in heads]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)


def run_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
