import math

import pytest
import torch

from fusion.space.training.losses import LOSSES, GramMSE, NeighbourKL, cosines

DIMS = [(5,), (1, 2, 3, 5, 8), (3, 8), (2, 5)]
ORACLES = {}


def oracle(name):
    return lambda function: ORACLES.setdefault(name, function)


def cosine(a, b):
    return (a @ b) / (a.norm() * b.norm())


@oracle("mse")
def slow_mse(student, teacher, dims):
    n, total = len(student), 0.0
    for dim in dims:
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        for i, j in pairs:
            given = cosine(student[i, :dim], student[j, :dim])
            total = total + (given - cosine(teacher[i], teacher[j])) ** 2 / len(pairs)
    return total


@oracle("kl")
def slow_kl(student, teacher, dims, temperature=0.05, student_temperature=None, spread=0.0):
    n, total = len(student), 0.0
    for dim in dims:
        softness = (student_temperature or temperature) * (dims[-1] / dim) ** spread
        for i in range(n):
            others = [j for j in range(n) if j != i]
            given = torch.stack([cosine(student[i, :dim], student[j, :dim]) for j in others])
            wanted = torch.stack([cosine(teacher[i], teacher[j]) for j in others])
            given, wanted = (given / softness).softmax(0), (wanted / temperature).softmax(0)
            total = total + (wanted * (wanted / given).log()).sum() / n
    return total


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(7, 8, generator=generator, dtype=torch.float64)
    return student, torch.randn(7, 11, generator=generator, dtype=torch.float64)


def value_and_gradient(loss, student, teacher, dims):
    leaf = student.clone().requires_grad_()
    value = loss(leaf, teacher, dims)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_equal_a_double_loop(name, dims, pair):
    value, gradient = value_and_gradient(LOSSES[name](), *pair, dims)
    expected, expected_gradient = value_and_gradient(ORACLES[name], *pair, dims)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize(
    "softness",
    [{"student_temperature": 0.2}, {"spread": 0.5}, {"student_temperature": 0.1, "spread": 1.0}],
)
def test_student_has_its_own_temperature_at_each_width(softness, pair):
    settings, dims = {"temperature": 0.3, **softness}, (2, 3, 8)
    value, gradient = value_and_gradient(NeighbourKL(**settings), *pair, dims)
    slow = lambda student, teacher, dims: slow_kl(student, teacher, dims, **settings)  # noqa: E731
    expected, expected_gradient = value_and_gradient(slow, *pair, dims)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def slow_kl_with_queries(student, teacher, dims, queries, temperature=0.3):
    n, total = len(student), 0.0
    texts = n - queries
    for dim in dims:
        for i in range(n):
            others = [j for j in range(texts) if j != i]
            given = torch.stack([cosine(student[i, :dim], student[j, :dim]) for j in others])
            wanted = torch.stack([cosine(teacher[i], teacher[j]) for j in others])
            given, wanted = (given / temperature).softmax(0), (wanted / temperature).softmax(0)
            rows = texts if i < texts else queries
            total = total + (wanted * (wanted / given).log()).sum() / rows
    return total


@pytest.mark.parametrize("queries", [1, 3])
def test_queries_are_compared_with_texts_and_nothing_with_them(queries, pair):
    loss = NeighbourKL(temperature=0.3)
    ours = value_and_gradient(lambda s, t, d: loss(s, t, d, queries), *pair, (2, 3, 8))
    slow = value_and_gradient(
        lambda s, t, d: slow_kl_with_queries(s, t, d, queries), *pair, (2, 3, 8)
    )
    torch.testing.assert_close(ours[0], slow[0])
    torch.testing.assert_close(ours[1], slow[1])


def test_mse_takes_no_queries(pair):
    with pytest.raises(ValueError, match="queries need the loss kl"):
        GramMSE()(*pair, (8,), 2)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_and_upstream_scale(name, pair):
    student, teacher = pair[0].float().requires_grad_(), pair[1].float()
    (3 * LOSSES[name]()(student, teacher, (3, 8))).backward()
    _, expected = value_and_gradient(ORACLES[name], *pair, (3, 8))
    torch.testing.assert_close(student.grad.double(), 3 * expected, rtol=1e-3, atol=1e-5)


def test_temperature_is_heeded(pair):
    value = NeighbourKL(temperature=0.7)(*pair, (5,))
    torch.testing.assert_close(value, slow_kl(*pair, (5,), temperature=0.7))


@pytest.mark.parametrize("name", LOSSES)
def test_zero_when_the_student_keeps_every_cosine(name, pair):
    turned = 3 * pair[1] @ torch.linalg.qr(torch.randn(11, 11, dtype=torch.float64))[0]
    value, gradient = value_and_gradient(LOSSES[name](), turned, pair[1], (11,))
    assert value == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_last_columns_feel_only_the_full_width(name, pair):
    _, narrow = value_and_gradient(LOSSES[name](), *pair, (2, 5))
    assert (narrow[:, 5:] == 0).all()
    _, both = value_and_gradient(LOSSES[name](), *pair, (2, 5, 8))
    _, full = value_and_gradient(LOSSES[name](), *pair, (8,))
    torch.testing.assert_close(both[:, 5:], full[:, 5:])


@pytest.mark.parametrize("name", LOSSES)
def test_norms_do_not_matter(name, pair):
    loss, scales = LOSSES[name](), torch.linspace(0.1, 9, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(loss(pair[0] * scales, pair[1], (2, 8)), loss(*pair, (2, 8)))
    torch.testing.assert_close(loss(pair[0], pair[1] * scales, (2, 8)), loss(*pair, (2, 8)))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_compared_in_float32(name, pair):
    student, teacher = pair[0].bfloat16(), pair[1].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(LOSSES[name](), student, teacher, (3, 8))
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    expected = ORACLES[name](student.float(), teacher, (3, 8))
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_degenerate_batches_stay_finite(name):
    student = torch.zeros(3, 4)
    student[1, 2] = 1.0  # zero vectors at width 2, two of them at width 4
    for rows in (3, 1):
        value, gradient = value_and_gradient(
            LOSSES[name](), student[:rows], torch.eye(3)[:rows], (2, 4)
        )
        assert math.isfinite(value)
        assert gradient.isfinite().all()
    assert cosines(student, len(student))[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("n", [1, 127, 129, 300, 513])
def test_cosines_of_many_vectors(n):
    vectors = torch.randn(n, 5, dtype=torch.float64)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    for texts in {1, n // 2 + 1, n}:
        torch.testing.assert_close(cosines(vectors, texts), unit @ unit[:texts].T)


def test_nothing_is_computed_for_a_gradient_that_nobody_wants(pair, monkeypatch):
    monkeypatch.setattr("fusion.space.training.losses._pull", None)
    assert GramMSE()(*pair, (2, 8)) > 0


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        NeighbourKL(temperature=0)


def test_student_temperature_and_spread_must_make_sense():
    with pytest.raises(ValueError, match="student_temperature must be positive, got 0"):
        NeighbourKL(student_temperature=0)
    with pytest.raises(ValueError, match="spread must be 0 or more, got -1"):
        NeighbourKL(spread=-1)
