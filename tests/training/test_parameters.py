"""Parameter summaries: the arithmetic written out, and checked against independent counts."""

import re
from math import prod

import pytest
import torch
from torch import Tensor, nn

from contract.manifest import Parameters
from training.errors import JobError
from training.networks.cnn_baseline import BaselineCNN
from training.publish.parameters import summarise


def arithmetic(formula: str) -> tuple[int, int]:
    """Both sides of ``a·b weights + c biases = d``, computed from the text alone."""
    left, right = formula.replace(",", "").split(" = ")
    terms = [re.match(r"[\d·]+", term) for term in left.split(" + ")]
    assert all(terms)
    total = sum(prod(int(factor) for factor in term[0].split("·")) for term in terms if term)
    return total, int(right)


def check(parameters: Parameters) -> None:
    for layer in parameters.layers:
        if layer.count:
            assert arithmetic(layer.formula) == (layer.count, layer.count)
        else:
            assert layer.formula == "no parameters"
    assert set(parameters.compared.values()) == {parameters.total}


def test_baseline_is_the_table() -> None:
    summary = summarise(BaselineCNN(), torch.zeros(2, 3, 32, 32))
    check(summary)
    assert summary.total == 3_177_418
    assert summary.multiply_adds == 6_400_000
    assert [layer.formula for layer in summary.layers if layer.count] == [
        "3·3·3·32 weights + 32 biases = 896",
        "3·3·32·64 weights + 64 biases = 18,496",
        "2,048·1,024 weights + 1,024 biases = 2,098,176",
        "1,024·1,024 weights + 1,024 biases = 1,049,600",
        "1,024·10 weights + 10 biases = 10,250",
    ]
    by_name = {layer.name: layer for layer in summary.layers}
    assert by_name["conv2"].kernel == "3×3, stride 1×2"
    assert by_name["conv2"].output_shape == (64, 16, 8)
    assert by_name["conv1"].kernel == "3×3, stride 1×1, padding 1×1"
    assert by_name["flatten"].output_shape == (2048,)
    assert by_name["relu1"].kernel is None


def test_batch_norm_and_frozen_parameters() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 6, (1, 3), groups=2, bias=False), nn.BatchNorm2d(6), nn.GELU()
    )
    network[1].weight.requires_grad_(False)
    summary = summarise(network, torch.zeros(1, 4, 5, 5))
    check(summary)
    assert [layer.formula for layer in summary.layers] == [
        "1·3·2·6 weights = 36",
        "6 scales (frozen) + 6 shifts = 12",
        "no parameters",
    ]
    assert summary.layers[0].multiply_adds == 36 * 5 * 3


def test_frozen_is_not_marked_where_everything_is() -> None:
    network = nn.Linear(2, 1).requires_grad_(False)
    summary = summarise(network, torch.zeros(1, 2))
    assert summary.layers[0].formula == "2·1 weights + 1 bias = 3"
    assert summary.layers[0].name == "network"


class Twice(nn.Module):
    """Uses one layer twice, and has a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.dense = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.dense(x)) * self.scale


def test_a_shared_layer_counts_once_but_computes_twice() -> None:
    summary = summarise(Twice(), torch.zeros(1, 3))
    check(summary)
    assert {layer.name: (layer.count, layer.multiply_adds) for layer in summary.layers} == {
        "dense": (12, 18),
        "network": (3, 0),
    }


def test_a_layer_that_never_runs_is_noticed() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(2, 2)
            self.forgotten = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises(JobError, match=r"6 parameters, but .* counts 12"):
        summarise(Forgetful(), torch.zeros(1, 2))


def test_the_network_is_left_in_its_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    before = network[1].running_mean.clone()
    summarise(network, torch.randn(4, 2))
    assert network.training
    assert torch.equal(network[1].running_mean, before)
