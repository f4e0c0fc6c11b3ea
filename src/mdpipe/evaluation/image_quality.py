"""Quality of samples of images, from features of samples and of real images.

FID and the Inception score are torchmetrics'. They are biased upward by few images, so only numbers of equally many
images, with the same feature network and the same reference, can be compared.

Shapes: N samples, M reference images, D features, K classes.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.evaluation.estimate import Estimate, mean_estimate

NEIGHBORS = 3
"""k of improved precision and recall: a manifold is the union of balls to each image's k-th neighbor."""
GROUPS = 20
"""Groups of samples of the jackknife."""
CHUNK = 512
"""Rows of a matrix of distances that are computed at once."""


class _Given(nn.Module):
    """The feature network of torchmetrics' metrics, where features are given instead of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(samples: Tensor, reference: Tensor) -> Estimate:
    r"""Return FID: the squared Fréchet distance of two Gaussians with the features' means and covariances.

    |mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2))  (Heusel et al. 2017, arXiv:1706.08500)

    The standard error is over samples; the reference images are fixed.

    Args:
        samples: features (N, D).
        reference: features (M, D).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # Training and evaluation do without torchmetrics.

    metric = FrechetInceptionDistance(_Given(samples.shape[1]), reset_real_features=False)
    metric.update(reference.double(), real=True)

    def statistic(kept: Tensor) -> float:
        metric.reset()
        metric.update(samples[kept].double(), real=False)
        return float(metric.compute())

    return jackknife(statistic, len(samples))


def inception_score(logits: Tensor) -> Estimate:
    """Return exp(mean KL(p(class | image) || p(class))), between 1 and K (Salimans et al. 2016, arXiv:1606.03498).

    All images are one split, since the ten splits of the original are too small for a few hundred images.

    Args:
        logits: the classifier's logits (N, K).
    """
    from torchmetrics.image.inception import InceptionScore

    def statistic(kept: Tensor) -> float:
        # It shuffles the images, which changes nothing with one split; it warns of its memory, and that one split has
        # no deviation between splits.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore", category=UserWarning):
            torch.manual_seed(0)
            metric = InceptionScore(_Given(logits.shape[1]), splits=1)
            metric.update(logits[kept].double())
            return float(metric.compute()[0])

    return jackknife(statistic, len(logits))


def jackknife(statistic: Callable[[Tensor], float], count: int) -> Estimate:
    """Return a statistic of all samples, with the standard error of the jackknife that leaves out a group at a time.

    stderr^2 = (G - 1) / G sum_g (T_g - mean T)^2 over the G statistics T_g without group g (Shao and Tu 1995)

    Args:
        statistic: a function of the indices of the samples that it is computed from.
        count: the number of samples.
    """
    indices, groups = torch.arange(count), min(GROUPS, count)
    without = np.array([statistic(indices[indices % groups != group]) for group in range(groups)])
    variance = (groups - 1) / groups * np.square(without - without.mean()).sum()
    return Estimate(statistic(indices), float(np.sqrt(variance)))


def precision_recall(samples: Tensor, reference: Tensor, k: int = NEIGHBORS) -> tuple[Estimate, Estimate]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Precision is the fraction of samples in the manifold of the reference images: within the distance of at least one
    to its k-th neighbor. Recall is the fraction of reference images in the manifold of the samples. Standard errors are
    over the images that are counted; the manifold is fixed.

    Args:
        samples: features (N, D), N > k.
        reference: features (M, D), M > k.
        k: the neighbor that sets the radius.

    Raises:
        ValueError: there are not more than k images.
    """
    if (fewest := min(len(samples), len(reference))) <= k:
        raise ValueError(f"precision and recall with k = {k} need {k + 1} images at least, and there are {fewest}")
    precision, recall = _is_in_manifold(samples, reference, k), _is_in_manifold(reference, samples, k)
    return mean_estimate(precision), mean_estimate(recall)


def _is_in_manifold(points: Tensor, images: Tensor, k: int) -> NDArray[np.float64]:
    """Return 1 for each point (N,) that is in the manifold of the images, else 0."""
    radii = nearest(images, images, k + 1)[0][:, k]  # The nearest image is the image itself.
    inside = [(_distances(chunk, images) <= radii).any(1) for chunk in torch.split(points, CHUNK)]
    return torch.cat(inside).double().numpy()


def nearest(points: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the distances to the k nearest images and their indices, ascending: both (N, k).

    Args:
        points: (N, D).
        images: (M, D), M >= k.
        k: number of neighbors.
    """
    images = images.double()
    found = [_distances(chunk, images).topk(k, largest=False) for chunk in torch.split(points, CHUNK)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _distances(points: Tensor, images: Tensor) -> Tensor:
    """Return Euclidean distances (N, M) in float64: as products in float32, near duplicates would be far apart."""
    return torch.cdist(points.double(), images.double())


def nearer_than_held_out(samples: Tensor, held_out: Tensor) -> Estimate:
    """Return the probability that a sample is nearer to the training images than a held-out image is.

    It is 1/2 for samples from the distribution of the held-out images (ties count half), and 1 for copies of training
    images. The standard error is over samples.

    Args:
        samples: distance of each sample to its nearest training image, (N,).
        held_out: the same of held-out images, (M,).
    """
    ordered = held_out.sort().values
    farther = len(ordered) - torch.searchsorted(ordered, samples, right=True)
    tied = len(ordered) - torch.searchsorted(ordered, samples) - farther
    return mean_estimate(((farther + tied / 2).double() / len(ordered)).numpy())


def pixel_noise(unigram: NDArray[np.int64], shape: tuple[int, int], seed: int) -> NDArray[np.int64]:
    """Return tokens (N, L) drawn independently with the frequencies of the training split, the worst baseline.

    Args:
        unigram: how often each token occurred, (V,).
        shape: N and L.
        seed: key of the random numbers.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.choice(len(unigram), shape, p=unigram / unigram.sum())


def class_accuracy(logits: Tensor, labels: Tensor) -> Estimate:
    """Return the fraction of images that the classifier takes for the class that they should be of.

    Args:
        logits: (N, K).
        labels: the classes, (N,).
    """
    return mean_estimate((logits.argmax(1) == labels).double().numpy())
