"""Laws of the transformer."""

import pytest
import torch
from pydantic import ValidationError

from mdpipe.networks.transformer import apply_rope, build_rope
from mdpipe.params.networks import TransformerConfig


def test_shorter_sequences_are_accepted_and_longer_ones_not(build, tokens, times):
    network = build("transformer")
    assert network(tokens[:, :7], times).shape == (6, 7, 16)
    with pytest.raises(ValueError, match="at most 12 tokens, not 13"):
        network(torch.zeros(1, 13, dtype=torch.int64), times[:1])


def test_order_matters(perturbed, times):
    """A hidden state depends on the order of the other tokens."""
    network = perturbed("transformer")
    with torch.no_grad():
        first = network(torch.tensor([[0, 1, 2, 3]]), times[:1])
        second = network(torch.tensor([[0, 2, 1, 3]]), times[:1])
    assert (first[:, 0] - second[:, 0]).abs().max() > 1e-4


def test_rotary_scores_depend_only_on_the_distance():
    """Scores of rotated queries and keys depend on the distance, and rotations preserve norms."""
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 8, generator=random)
    rotated_query, rotated_key = (apply_rope(x.expand(20, 8), *build_rope(20, 8, x.device)) for x in (query, key))
    scores = rotated_query @ rotated_key.T
    for distance in range(-19, 20):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1], atol=1e-5)
    assert not torch.allclose(scores[0, 0], scores[0, 5], atol=1e-3)
    assert torch.allclose(rotated_query.norm(dim=1), query.norm())


def test_conditioned_branches_initially_add_nothing(build, tokens, times):
    """All gates are 0, so the hidden states are the normalized embeddings."""
    network = build("transformer", time_conditioning=True)
    expected = torch.nn.functional.layer_norm(network.embedding(tokens), (16,))
    assert torch.equal(network(tokens, times), expected)


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_causal_hidden_states_depend_only_on_the_prefix(perturbed, times, time_conditioning):
    """A changed token changes its own and all later hidden states, and no earlier one."""
    network = perturbed("transformer", causal=True, time_conditioning=time_conditioning)
    one = torch.zeros(1, 12, dtype=torch.int64)
    changed = one + torch.eye(12, dtype=torch.int64)
    with torch.no_grad():
        differences = (network(changed, times[:1].expand(12)) - network(one, times[:1])).abs().amax(dim=2)
    visible = torch.ones(12, 12, dtype=torch.bool).triu()
    assert differences[visible].min() > 2e-4
    assert differences[~visible].max() < 1e-4


def test_causal_hidden_states_of_a_prefix_are_those_of_the_whole(perturbed, tokens, times):
    network = perturbed("transformer", causal=True)
    with torch.no_grad():
        full = network(tokens, times)
        for length in range(1, 13):
            assert torch.allclose(network(tokens[:, :length], times), full[:, :length], atol=1e-5)


def test_causal_and_bidirectional_weights_are_equal(build):
    plain, causal = (build("transformer", causal=causal).state_dict() for causal in (False, True))
    assert plain.keys() == causal.keys()
    assert all(torch.equal(plain[name], causal[name]) for name in plain)


def test_images_are_sequences_of_sub_pixels(perturbed, tokens, times):
    network = perturbed("transformer", shape=(3, 2, 2))
    with torch.no_grad():
        assert network.max_seq_len == 12
        assert torch.equal(network(tokens, times), perturbed("transformer", shape=(12,))(tokens, times))


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(ValidationError, match=r"num_heads\n *does not divide hidden_size = 16"):
        TransformerConfig(num_layers=1, num_heads=3, hidden_size=16)
