"""Quality of samples of images, from features of samples and of real images.

FID and the Inception score are biased upward by few images, so only numbers of equally many images, with the same
feature network and the same reference, can be compared.

Standard errors are those of the delta method: the standard deviation of the influence function over samples, divided by
sqrt(N). It says how much a statistic changes with the weight of one sample, in units of that weight.

Shapes: N samples, M reference images, D features, K classes, R = min(M, D).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.evaluation.estimate import Estimate, mean_estimate

NEIGHBORS = 3
"""k of improved precision and recall: a manifold is the union of balls to each image's k-th neighbor."""
CHUNK = 512
"""Rows of a matrix of distances that are computed at once."""


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of features."""

    mean: Tensor
    """(D,)."""
    root: Tensor
    """A square root A (R, D) of the covariance A^T A, which may be singular."""


def fit_gaussian(features: Tensor) -> Gaussian:
    """Return the normal distribution with the mean and the unbiased covariance of features (M, D), in float64.

    Raises:
        ValueError: There are fewer than two images.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs two images at least, and there are {len(features)}")
    mean = features.mean(0, dtype=torch.float64)
    return Gaussian(mean, torch.linalg.qr(features - mean, mode="r").R / math.sqrt(len(features) - 1))


def frechet_distance(samples: Tensor, reference: Gaussian) -> Estimate:
    r"""Return FID: the squared Fréchet distance of the reference and a Gaussian with the samples' mean and covariance.

    |mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2))  (Heusel et al. 2017, arXiv:1706.08500)

    The standard error is over samples, the reference is fixed. With d = x - mu, the influence of a sample x is

    2 (mu - mu') d + d (I - T) d - tr((I - T) S),  T = A^T (A S A^T)^(-1/2) A,  S' = A^T A

    where T is the optimal transport map from N(mu, S) to N(mu', S') and I - T the derivative of the distance of the
    covariances. Both follow from a singular value decomposition of the N vectors A d, V diag(s) W^T: the trace of
    (S S')^(1/2) is sum_k s_k / sqrt(N - 1), and d_i T d_i = sqrt(N - 1) sum_k V_ik^2 s_k. No matrix is inverted:
    where A S A^T is singular, the inverse root is the pseudo-inverse, on the span of the samples' vectors A d.

    With fewer samples than features (or reference images than features) the value is still FID, and the error is
    that of weights of the samples that there are; a new sample would leave their span. In simulations with a quarter as
    many to twice as many samples as features it was 0.9 to 1.4 times the spread over sets of samples. It is of first
    order: near equal distributions, FID has mostly the bias of few samples, which is not in it.

    Args:
        samples: Features (N, D).
        reference: The distribution of the reference images.
    """
    scale, mean = math.sqrt(len(samples) - 1), samples.mean(0, dtype=torch.float64)
    centered = samples - mean
    V, s, _ = torch.linalg.svd(centered @ reference.root.T, full_matrices=False)
    shift, squares, transported = mean - reference.mean, centered.square().sum(1), scale * V.square() @ s
    traces = squares.sum() / scale**2 + reference.root.square().sum() - 2 * s.sum() / scale
    influence = 2 * centered @ shift + squares - transported  # except for a constant
    return Estimate(float(shift.square().sum() + traces), mean_estimate(influence.numpy()).stderr)


def inception_score(logits: Tensor) -> Estimate:
    """Return exp(mean KL(p(class | image) || p(class))), between 1 and K (Salimans et al. 2016, arXiv:1606.03498).

    All images are one split, since the ten splits of the original are too small for a few hundred images. An image's
    influence on the mean is its own KL: by a change of p(class), which minimizes the mean, it does not change.

    Args:
        logits: The classifier's logits (N, K).
    """
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    # Terms with p = 0 are 0: where all images have none of a class, its log is -inf.
    divergences = torch.where(p > 0, p * (log_p - p.mean(0).log()), 0.0).sum(1)
    return mean_estimate(divergences.numpy()).exponential()


def precision_recall(samples: Tensor, reference: Tensor, k: int = NEIGHBORS) -> tuple[Estimate, Estimate]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Precision is the fraction of samples in the manifold of the reference images: within the distance of at least one
    to its k-th neighbor. Recall is the fraction of reference images in the manifold of the samples. Standard errors are
    over the images that are counted; the manifold is fixed.

    Args:
        samples: Features (N, D), N > k.
        reference: Features (M, D), M > k.
        k: The neighbor that sets the radius.

    Raises:
        ValueError: There are not more than k images.
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
        k: Number of neighbors.
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
        samples: Distance of each sample to its nearest training image, (N,).
        held_out: The same of held-out images, (M,).
    """
    ordered = held_out.sort().values
    farther = len(ordered) - torch.searchsorted(ordered, samples, right=True)
    tied = len(ordered) - torch.searchsorted(ordered, samples) - farther
    return mean_estimate(((farther + tied / 2).double() / len(ordered)).numpy())


def pixel_noise(unigram: NDArray[np.int64], shape: tuple[int, int], seed: int) -> NDArray[np.int64]:
    """Return tokens (N, L) drawn independently with the frequencies of the training split, the worst baseline.

    Args:
        unigram: Number of times that each token occurred, (V,).
        shape: N and L.
        seed: Key of the random numbers.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.choice(len(unigram), shape, p=unigram / unigram.sum())


def class_accuracy(logits: Tensor, labels: Tensor) -> Estimate:
    """Return the fraction of images that the classifier takes for the class that they should be of.

    Args:
        logits: (N, K).
        labels: The classes, (N,).
    """
    return mean_estimate((logits.argmax(1) == labels).double().numpy())
