from dataclasses import replace

import pytest
import torch

from fusion.space.head import FusionHead, HeadConfig

VARIANTS = [
    HeadConfig(10, 6),
    HeadConfig(10, 6, output_norm=True),
    HeadConfig(10, 6, bias=False, input_norm=False),
    HeadConfig(10, 6, negative_slope=None, residual_width=4),
    HeadConfig.linear(10, 6),
    HeadConfig.linear(10, 6, residual_width=3),
]


def trained(config):
    """A head whose every parameter and running statistic has moved."""
    torch.manual_seed(0)
    head = FusionHead(config)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    for _ in range(3):
        head(torch.randn(20, 10) * 2 + 1)
    return head.eval()


@pytest.mark.parametrize("config", VARIANTS)
def test_folding_changes_nothing_but_the_layers(config):
    head, x = trained(config), torch.randn(33, 10)
    folded = head.fold()
    assert folded.config == replace(config, batch_norm=False, bias=folded.config.bias)
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in folded.modules())
    assert not folded.training
    torch.testing.assert_close(folded(x), head(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        folded.double()(x.double()), head.double()(x.double()), rtol=1e-6, atol=1e-6
    )


def test_the_default_is_the_papers_head():
    head, x = trained(HeadConfig(10, 6)), torch.randn(9, 10)
    centred = x - x.mean(1, keepdim=True)
    normed = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    mapped = normed * head.input_norm.weight + head.input_norm.bias
    mapped = mapped @ head.linear.weight.T + head.linear.bias
    norm = head.batch_norm
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    mapped = (mapped - norm.running_mean) * scale + norm.bias
    expected = torch.where(mapped > 0, mapped, 0.2 * mapped)
    torch.testing.assert_close(head(x), expected)


def test_kaiming_start_keeps_the_second_moment():
    torch.manual_seed(0)
    head = FusionHead(HeadConfig(1000, 900))
    assert head.linear.weight.std().item() == pytest.approx((2 / 1.04 / 1000) ** 0.5, rel=0.01)
    assert (head.linear.bias == 0).all()


@pytest.mark.parametrize("residual_width", [0, 5])
def test_a_linear_head_begins_as_its_start_exactly(residual_width):
    head = FusionHead(HeadConfig.linear(10, 6, residual_width))
    matrix, x = torch.randn(10, 6), torch.randn(4, 10)
    head.start_from(matrix)
    torch.testing.assert_close(head(x), x @ matrix)


def test_the_residual_branch_can_learn_from_its_zero_start():
    head = FusionHead(HeadConfig.linear(10, 6, residual_width=5))
    head(torch.randn(4, 10)).pow(3).sum().backward()
    assert head.residual.out.weight.grad.abs().max() > 0


def test_bad_configs_name_the_field():
    with pytest.raises(ValueError, match="out_dim must be positive, got 0"):
        HeadConfig(10, 0)
    with pytest.raises(ValueError, match="residual_width must be 0 or more, got -1"):
        HeadConfig(10, 5, residual_width=-1)
