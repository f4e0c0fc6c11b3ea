"""Muon is torch's in another number format, and its polynomial is that of the singular values; NorMuon's formula."""

import pytest
import torch
from torch import Tensor, nn

from mdpipe.training.muon import COEFFICIENTS, STEPS, Muon, NorMuon, orthogonalize

SHAPES = [(16, 16), (16, 24), (24, 16), (16, 48), (48, 16), (1, 5), (5, 1), (128, 512)]
"""Square ones, those up to 1.5 columns per row and longer ones, which are computed in different ways."""


def gaussian(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def polynomial_of_singular_values(matrix: Tensor) -> Tensor:
    """In float64, by the singular value decomposition."""
    a, b, c = COEFFICIENTS
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values /= values.norm()
    for _ in range(STEPS):
        values = a * values + b * values**3 + c * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orthogonalize_applies_the_quintic_to_singular_values(shape):
    matrix = gaussian(shape)
    found = orthogonalize(matrix)
    torch.testing.assert_close(found.double(), polynomial_of_singular_values(matrix), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32), (32, 128)], ids=str)
def test_small_singular_values_lose_at_most_three_digits(shape):
    """They go from 1 to 1e-8: the Gram matrix of the second shape has no digit left of their squares."""
    left, _, right = torch.linalg.svd(gaussian(shape).double(), full_matrices=False)
    matrix = left * torch.logspace(0, -8, 32, dtype=torch.float64) @ right
    error = torch.linalg.matrix_norm(orthogonalize(matrix.float()) - polynomial_of_singular_values(matrix), 2)
    assert error < 3e-3


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8)], ids=str)
def test_a_batch_is_orthogonalized_matrix_by_matrix(shape):
    matrices = gaussian((3, *shape))
    found = orthogonalize(matrices)
    torch.testing.assert_close(found, torch.stack([orthogonalize(matrix) for matrix in matrices]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8)], ids=str)
def test_in_bfloat16_it_is_right_to_bfloat16s_accuracy(shape):
    """Longer matrices take the plain iteration there: on Gram matrices the error would be above 1."""
    left, _, right = torch.linalg.svd(gaussian(shape), full_matrices=False)
    matrix = left * torch.logspace(0, -2, 8) @ right
    found = orthogonalize(matrix.bfloat16()[None])[0]
    torch.testing.assert_close(found.double(), polynomial_of_singular_values(matrix), rtol=0, atol=3e-2)


@pytest.mark.parametrize("shape", [(4, 6), (4, 4), (9, 3)], ids=str)
def test_a_gradient_of_zeros_moves_nothing(shape):
    assert not orthogonalize(torch.zeros(shape)).any()


def test_steps_are_those_of_torch_to_bfloat16s_accuracy():
    """torch.optim.Muon orthogonalizes in bfloat16: each of its steps has a relative error of one or two hundredths."""
    ours, others = ([nn.Parameter(gaussian(shape)) for shape in SHAPES[:7]] for _ in range(2))
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    muon = Muon([{"params": ours}], **options)
    reference = torch.optim.Muon(others, adjust_lr_fn="match_rms_adamw", **options)
    for step in range(5):
        before = [weight.detach().clone() for weight in others]
        for index, (weight, other) in enumerate(zip(ours, others, strict=True)):
            weight.grad = gaussian(tuple(weight.shape), seed=1 + 10 * step + index)
            other.grad = weight.grad.clone()
        muon.step()
        reference.step()
        for weight, other, start in zip(ours, others, before, strict=True):
            moved = other.detach() - start
            assert (weight.detach() - start - moved).norm() < 0.04 * moved.norm()
            other.data.copy_(weight.detach())


def test_momentum_and_decay_match_torch_to_the_last_digits():
    """Where the direction is known: orthogonalizing a matrix of one row divides it by its norm, up to a factor."""
    weight, other = (nn.Parameter(gaussian((1, 6))) for _ in range(2))
    muon = Muon([{"params": [weight]}], lr=0.02, momentum=0.9, weight_decay=0.1)
    total = torch.zeros(1, 6, dtype=torch.float64)
    expected = other.detach().double()
    size = polynomial_of_singular_values(torch.ones(1, 1)).item()
    for step in range(5):
        gradient = gaussian((1, 6), seed=step)
        weight.grad = gradient
        muon.step()
        total = 0.9 * total + 0.1 * gradient.double()
        direction = 0.9 * total + 0.1 * gradient.double()
        step_length = 0.02 * 0.2 * 6**0.5 * size
        expected = (1 - 0.02 * 0.1) * expected - step_length * direction / direction.norm()
        torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("kind", [Muon, NorMuon])
def test_kernels_of_a_convolution_move_as_a_matrix(kind, cautious):
    """Its rows are the output channels; the memory of the kernels may have another order."""
    kernels = nn.Parameter(gaussian((6, 4, 3, 3)).contiguous(memory_format=torch.channels_last))
    matrix = nn.Parameter(gaussian((6, 4, 3, 3)).flatten(1))
    own = {"row_beta2": 0.9} if kind is NorMuon else {}
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "cautious_weight_decay": cautious} | own
    optimizers = [kind([{"params": [weight]}], **options) for weight in (kernels, matrix)]
    for step in range(3):
        kernels.grad = gaussian((6, 4, 3, 3), seed=1 + step).contiguous(memory_format=torch.channels_last)
        matrix.grad = gaussian((6, 4, 3, 3), seed=1 + step).flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    assert not torch.equal(matrix, gaussian((6, 4, 3, 3)).flatten(1))
    assert torch.equal(kernels.flatten(1), matrix)


def test_a_parameter_without_a_gradient_stays():
    moved, left = nn.Parameter(torch.eye(3)), nn.Parameter(torch.eye(3))
    moved.grad = torch.eye(3)
    Muon([{"params": [moved, left]}], lr=0.1, momentum=0.9, weight_decay=0.1).step()
    assert torch.equal(left, torch.eye(3))
    assert not torch.equal(moved, torch.eye(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_steps_are_those_of_a_cpu_to_bfloat16s_accuracy():
    on_cpu, on_gpu = ([gaussian(shape).to(device) for shape in SHAPES] for device in ("cpu", "cuda"))
    for weights in (on_cpu, on_gpu):
        parameters = [nn.Parameter(weight) for weight in weights]
        for parameter in parameters:
            parameter.grad = torch.flip(parameter.detach(), (0,))
        Muon([{"params": parameters}], lr=0.02, momentum=0.9, weight_decay=0.0).step()
    for found, wanted, shape in zip(on_gpu, on_cpu, SHAPES, strict=True):
        moved = wanted - gaussian(shape)
        assert (found.cpu() - wanted).norm() < 0.04 * moved.norm()


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("shape", [(16, 16), (6, 16), (16, 6)], ids=str)
def test_normuon_follows_its_algorithm(shape, cautious):
    """Algorithm 1 of arXiv:2510.05491 with Nesterov momentum, in float64, with and without cautious decay."""
    weight = nn.Parameter(gaussian(shape))
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.5, "row_beta2": 0.8, "cautious_weight_decay": cautious}
    optimizer = NorMuon([{"params": [weight]}], **options)
    expected = weight.detach().double()
    momentum, mean_square = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape[0], 1, dtype=torch.float64)
    for step in range(5):
        weight.grad = gaussian(shape, seed=step + 1)
        gradient = weight.grad.double()
        momentum = 0.9 * momentum + 0.1 * gradient
        orthogonal = polynomial_of_singular_values(0.9 * momentum + 0.1 * gradient)
        mean_square = 0.8 * mean_square + 0.2 * (orthogonal**2).mean(dim=1, keepdim=True)
        rows = orthogonal / (mean_square**0.5 + 1e-8)
        update = 0.2 * weight.numel() ** 0.5 * rows / (rows**2).sum() ** 0.5
        decayed = expected * update >= 0 if cautious else torch.ones(shape)
        expected = expected - 0.02 * update - 0.02 * 0.5 * decayed * expected
        optimizer.step()
        torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=2e-5)
    assert not cautious or not decayed.all()


def test_normuon_gives_rows_equal_norms_without_memory():
    weight = nn.Parameter(torch.zeros(6, 9))
    weight.grad = gaussian((6, 9)) * torch.logspace(0, 2, 6)[:, None]
    NorMuon([{"params": [weight]}], lr=1.0, momentum=0.0, weight_decay=0.0, row_beta2=0.0).step()
    torch.testing.assert_close(weight.detach().square().mean(dim=1), torch.full((6,), 0.04), rtol=1e-5, atol=0)
