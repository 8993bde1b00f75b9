"""The fused kernel: through Triton's interpreter without a GPU, and through the real compiler.

The interpreter must be chosen before Triton is imported, so these tests run in processes of their
own; what the interpreter accepts, the compiler may still reject, hence the offline compile.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

PREPARE = """
import numpy as np, torch
from fusion.topk.engines import triton_kernel as t
from fusion.topk.problem import pose
from fusion.topk.reference import reference_topk
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
t.FIRST = 8  # so that a small corpus takes several chunks
def signs(q, c, d, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.array([-1, 1], np.float32), (q + c, d))
    rows *= rng.choice(np.array([0.5, 1, 2], np.float32), (q + c, 1))
    return rows[:q], rows[q:]
def check(q, c, dims, k, dtype, exclude=None):
    queries, corpus = (torch.from_numpy(a).to(DEVICE, dtype) for a in (q, c))
    problem = pose(queries, corpus, dims, k, exclude, None)
    assert t.unfit(problem) is None
    found = [part.cpu().numpy() for part in t.search(problem)]
    scores, indices = reference_topk(q, c, dims, k, exclude=exclude)
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], scores, rtol=3e-7)
"""


def run(body, interpret=True):
    """Run Python in a process where Triton interprets kernels, unless there is a GPU."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"}
    if interpret and not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    out = subprocess.run(
        [sys.executable, "-c", PREPARE + body], capture_output=True, text=True, env=environment
    )
    assert out.returncode == 0, out.stderr[-3000:]
    return out.stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_indices_are_the_references(dtype):
    run(f"""
q, c = signs(5, 403, 48)
for k in (1, 10, 402, 403):
    check(q, c, [7, 16, 48], k, torch.{dtype}, exclude=np.array([-1, 0, 402, 16, 17]))
""")


def test_awkward_shapes_and_values():
    run("""
check(*signs(1, 1, 3), [1, 3], 5, torch.float32)
check(*signs(130, 17, 5), [5], 3, torch.float32)
q, c = signs(3, 300, 40)
c[:, :8] = 0
c[5] = 0
q[1] = 0
check(q, c, [8, 33, 40], 20, torch.float32)
c = np.repeat(q[:1], 300, axis=0) + 1
check(q, c, [8, 40], 7, torch.float32)
""")


def test_overflow_repeats_a_smaller_chunk():
    run("""
t.FIRST, slots = 4, 16
angle = np.linspace(1.5, 0.01, 700)  # ascending scores: every group of every chunk passes
c = np.zeros((700, 16), np.float32)
c[:, 0], c[:, 15] = np.cos(angle), np.sin(angle)
q = np.eye(2, 16, dtype=np.float32)
q_here, c_here = (torch.from_numpy(a).to(DEVICE) for a in (q, c))
problem = pose(q_here, c_here, [8, 16], 3, None, None)
_, indices = t._search_block(problem, slice(0, 2), problem.corpus_norms.inverse.to(DEVICE), slots)
np.testing.assert_array_equal(indices.cpu()[1, 0], reference_topk(q, c, [16], 3)[1][0, 0])
""")


def test_half_precision_corpus_with_float32_queries():
    run("""
rng = np.random.default_rng(0)
q = rng.standard_normal((4, 32)).astype(np.float32)
c = torch.from_numpy(rng.standard_normal((200, 32))).bfloat16()
problem = pose(torch.from_numpy(q).to(DEVICE), c.to(DEVICE), [16, 32], 9, None, None)
_, indices = t.search(problem)
np.testing.assert_array_equal(indices.cpu(), reference_topk(q, c.float().numpy(), [16, 32], 9)[1])
""")


def test_unfit_problems_are_named():
    out = run("""
q, c = (torch.from_numpy(a).to(DEVICE) for a in signs(2, 20, 8))
print(t.unfit(pose(q, c.double(), [8], 3, None, None)))
print(t.unfit(pose(q, c * 2.0 ** 99, [8], 3, None, None)))
""")
    assert "the corpus is torch.float64" in out
    assert "must be scaled first" in out


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_compiler_takes_it_without_spills(arch, dtype, tmp_path):
    out = run(
        f"""
import triton
triton.knobs.nvidia.dump_ptxas_log = True  # what Triton's own assembler says of spills
triton.knobs.cache.dir = r"{tmp_path}"
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
pointers = ["*{dtype}", "*{dtype}", "*fp32", "*i32", "*fp32", "*i64", "*i32", "*i64"]
names = t.kernel.arg_names
signature = dict(zip(names, pointers + ["i32"] * 8))
fixed = dict(SLOTS=1024, EXCLUDE=True, UPCAST=False)
for config in t.CONFIGS[2 if "{dtype}" == "bf16" else 4]:
    constants = fixed | config.kwargs
    whole = signature | {{name: "constexpr" for name in constants}}
    aligned = {{(i,): [["tt.divisibility", 16]] for i in (0, 1, 2, 4, 5, 6, 7, 10, 11)}}
    source = ASTSource(fn=t.kernel, signature=whole, constexprs=constants, attrs=aligned)
    options = dict(num_warps=config.num_warps, num_stages=config.num_stages)
    triton.compile(source, target=GPUTarget("cuda", {arch}, 32), options=options)
""",
        interpret=False,
    )
    assert out.count("0 bytes spill stores, 0 bytes spill loads") == out.count("Used") == 3, out
    registers = [
        int(word.split("Used ")[1].split()[0]) for word in out.splitlines() if "Used" in word
    ]
    assert max(registers) <= 255
