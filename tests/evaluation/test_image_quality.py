"""Measures of samples of images, against closed forms."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from mdpipe.evaluation import image_quality as quality
from mdpipe.evaluation.estimate import Estimate

GENERATOR = torch.Generator().manual_seed(0)


def gaussian(count: int, mean: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Features whose sample mean and covariance are exactly `mean` and diag(scales^2)."""
    noise = torch.randn(count, len(mean), generator=GENERATOR, dtype=torch.float64)
    noise -= noise.mean(0)
    whitened = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / (count - 1))).T
    return whitened * scales + mean


def test_fid_is_the_distance_of_two_known_gaussians():
    """With diagonal covariances, |mu - mu'|^2 + sum (s - s')^2."""
    means = torch.tensor([[0.0, 1.0, -2.0], [0.5, 1.0, 1.0]], dtype=torch.float64)
    scales = torch.tensor([[1.0, 2.0, 0.5], [3.0, 2.0, 1.0]], dtype=torch.float64)
    samples, reference = (gaussian(60, mean, scale) for mean, scale in zip(means, scales, strict=True))
    expected = float((means[0] - means[1]).square().sum() + (scales[0] - scales[1]).square().sum())
    assert fid(samples, reference).value == pytest.approx(expected, rel=1e-9)


def fid(samples: torch.Tensor, reference: torch.Tensor) -> Estimate:
    return quality.frechet_distance(samples, quality.fit_gaussian(reference))


class Given(torch.nn.Module):
    """The feature network of torchmetrics' metrics, for features that are given."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


@pytest.mark.parametrize(("count", "others"), [(200, 300), (20, 300), (200, 20), (15, 20)])
def test_fid_is_that_of_torchmetrics(count, others):
    """Also with fewer samples or reference images than the 40 features: singular covariances."""
    mixing = torch.randn(40, 40, generator=GENERATOR, dtype=torch.float64)
    samples = torch.randn(count, 40, generator=GENERATOR, dtype=torch.float64) @ mixing + 1
    reference = torch.randn(others, 40, generator=GENERATOR, dtype=torch.float64)
    metric = FrechetInceptionDistance(Given(40)).set_dtype(torch.float64)
    metric.update(samples, real=False)
    metric.update(reference, real=True)
    # It takes roots of eigenvalues that should be 0 and are of the order of 1e-16 of the largest: 1e-8 for each.
    assert fid(samples, reference).value == pytest.approx(float(metric.compute()), rel=1e-6)


def test_error_of_fid_is_that_of_the_moments_on_a_line():
    """In one dimension the influence is 2 (m - m') d + (1 - s' / s) (d^2 - s^2): moments up to the fourth."""
    samples = torch.randn(50, 1, generator=GENERATOR, dtype=torch.float64).exp()
    d = samples - samples.mean()
    shift, stretch = float(samples.mean()) - 2.0, 1 - 3.0 / float(d.std())
    second, third, fourth = (float(d.pow(power).mean()) for power in (2, 3, 4))
    variance = 4 * shift**2 * second + 4 * shift * stretch * third + stretch**2 * (fourth - second**2)
    estimate = fid(samples, gaussian(500, torch.tensor([2.0]), torch.tensor([3.0])))
    assert estimate.stderr == pytest.approx(math.sqrt(variance / 49), rel=1e-9)


def test_error_of_fid_is_that_of_a_gaussian_on_a_line():
    """FID = (m - m')^2 + (s - s')^2 has the variance (4 (m - m')^2 s^2 + 2 (s - s')^2 s^2) / N."""
    samples = torch.randn(100_000, 1, generator=GENERATOR, dtype=torch.float64)
    reference = gaussian(500, torch.tensor([2.0]), torch.tensor([3.0]))
    expected = math.sqrt((4 * 2.0**2 + 2 * 2.0**2) / len(samples))
    # Over 1,000 such sets its relative standard deviation was 0.35 %: four of these, 1 in 15,000.
    assert fid(samples, reference).stderr == pytest.approx(expected, rel=4 * 0.0035)


def test_error_of_fid_is_the_spread_over_sets_of_samples():
    """In three correlated dimensions, with another mean and other axes than the reference."""
    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, -0.5], [0.3, 0.0, 0.7]], dtype=torch.float64)
    reference = quality.fit_gaussian(gaussian(50, torch.zeros(3), torch.tensor([2.0, 1.0, 0.5])))
    sets = torch.randn(2000, 400, 3, generator=GENERATOR, dtype=torch.float64) @ mixing + 0.5
    estimates = [quality.frechet_distance(samples, reference) for samples in sets]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    # The relative error of a spread is 1 / sqrt(2 * 1999) = 1.6 %: four of these, 1 in 15,000.
    assert np.mean([estimate.stderr for estimate in estimates]) == pytest.approx(spread, rel=0.065)


def test_fid_in_a_subspace_is_that_of_the_coordinates():
    """Singular covariances change neither value nor error: three features in seven dimensions."""
    samples, reference = (torch.randn(30, 3, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
    axes = torch.linalg.qr(torch.randn(7, 3, generator=GENERATOR, dtype=torch.float64)).Q.T
    found, expected = fid(2 * samples @ axes, reference @ axes), fid(2 * samples, reference)
    assert (found.value, found.stderr) == pytest.approx((expected.value, expected.stderr), rel=1e-9)


def test_fid_of_a_set_with_itself_is_zero_and_needs_two_images():
    features = torch.randn(30, 3, generator=GENERATOR)
    estimate = fid(features, features)
    assert (estimate.value, estimate.stderr) == pytest.approx((0, 0), abs=1e-12)
    with pytest.raises(ValueError, match="two images at least, and there are 1"):
        quality.fit_gaussian(features[:1])


@pytest.mark.parametrize(("classes", "score"), [(1, 1.0), (4, 4.0), (10, 10.0)])
def test_inception_score_counts_the_classes_of_certain_images(classes, score):
    logits = 80.0 * torch.nn.functional.one_hot(torch.arange(40) % classes, 10)
    assert quality.inception_score(logits).value == pytest.approx(score, rel=1e-6)


def test_inception_score_of_known_distributions():
    """Two kinds of images with p = (3/4, 1/4) and (1/4, 3/4): exp(log 2 - H(1/4)), and equal influences."""
    logits = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log().repeat(40, 1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    estimate = quality.inception_score(logits)
    assert (estimate.value, estimate.stderr) == pytest.approx((2 * math.exp(-entropy), 0), rel=1e-6, abs=1e-8)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Of its memory, and that one split has no deviation.
def test_inception_score_is_that_of_torchmetrics():
    logits = 3 * torch.randn(100, 10, generator=GENERATOR, dtype=torch.float64)
    metric = InceptionScore(Given(10), splits=1)
    metric.update(logits)
    assert quality.inception_score(logits).value == pytest.approx(float(metric.compute()[0]), rel=1e-9)


def test_error_of_inception_score_is_the_spread_over_sets():
    sets = 3 * torch.randn(2000, 400, 4, generator=GENERATOR, dtype=torch.float64)
    estimates = [quality.inception_score(logits) for logits in sets]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    # The relative error of a spread is 1.6 %: four of these, 1 in 15,000.
    assert np.mean([estimate.stderr for estimate in estimates]) == pytest.approx(spread, rel=0.065)


def test_precision_and_recall_of_points_on_a_line():
    """With k = 1 the manifold of 0, 1, 2, 3 is [-1, 4]; that of 0, 0.5, 10, 10.5 is [-0.5, 1] and [9.5, 11]."""
    reference = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    samples = torch.tensor([[0.0], [0.5], [10.0], [10.5]])
    precision, recall = quality.precision_recall(samples, reference, k=1)
    assert (precision.value, recall.value) == (0.5, 0.5)
    assert precision.stderr == pytest.approx(math.sqrt(0.25 / 3))


def test_precision_and_recall_of_separate_and_of_equal_sets():
    features = torch.randn(600, 4, generator=GENERATOR)  # more than a chunk of the distances
    far = features + 100
    assert [estimate.value for estimate in quality.precision_recall(features, features)] == [1.0, 1.0]
    assert [estimate.value for estimate in quality.precision_recall(features, far)] == [0.0, 0.0]
    # All samples near one reference image: good, and of little variety.
    precision, recall = quality.precision_recall(features[:1] + 1e-3 * features, features)
    assert precision.value == 1.0 and recall.value < 0.05


def test_precision_and_recall_need_more_images_than_neighbors():
    with pytest.raises(ValueError, match="k = 3 need 4 images at least, and there are 3"):
        quality.precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))


def test_nearest_images_are_those_of_all_distances_sorted():
    points, images = torch.randn(5, 3, generator=GENERATOR), torch.randn(700, 3, generator=GENERATOR)
    distances, indices = quality.nearest(points, images, 4)
    expected = np.linalg.norm(points.numpy()[:, None] - images.numpy()[None], axis=2)
    assert np.array_equal(indices.numpy(), expected.argsort(1)[:, :4])
    assert distances.numpy() == pytest.approx(np.sort(expected, 1)[:, :4], rel=1e-5)


def test_fraction_of_nearer_samples_of_copies_and_equals():
    held_out = torch.tensor([3.0, 1.0, 2.0])
    assert quality.nearer_than_held_out(torch.zeros(4), held_out).value == 1.0
    assert quality.nearer_than_held_out(torch.full((4,), 9.0), held_out).value == 0.0
    assert quality.nearer_than_held_out(held_out, held_out).value == pytest.approx(0.5)
    # 1.5 is nearer than two of three, 2 than one and half of its equal.
    assert quality.nearer_than_held_out(torch.tensor([1.5, 2.0]), held_out).value == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_pixel_noise_has_training_frequencies_and_a_seed():
    noise = quality.pixel_noise(np.array([1, 0, 3]), (400, 10), seed=1)
    assert noise.shape == (400, 10) and not (noise == 1).any()
    # 4000 pixels: four standard errors.
    assert (noise == 2).mean() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 4000))
    assert np.array_equal(noise, quality.pixel_noise(np.array([1, 0, 3]), (400, 10), seed=1))


def test_class_accuracy_is_the_fraction_of_requested_classes():
    logits = torch.eye(4)
    assert quality.class_accuracy(logits, torch.tensor([0, 1, 2, 0])).value == 0.75
