"""What holds for the transformer alone."""

import pytest
import torch

from mdpipe.networks.build import build_network
from mdpipe.networks.transformer import rotary, rotate


def test_shorter_sequences_are_taken_and_longer_ones_refused(build, tokens, times):
    network = build("transformer")
    assert network(tokens[:, :7], times).shape == (6, 7, 16)
    with pytest.raises(ValueError, match="at most 12 tokens, not 13"):
        network(torch.zeros(1, 13, dtype=torch.int64), times[:1])


def test_order_matters(shaken, times):
    """What a token sees is not a bag of the others."""
    network = shaken("transformer")
    with torch.no_grad():
        first = network(torch.tensor([[0, 1, 2, 3]]), times[:1])
        second = network(torch.tensor([[0, 2, 1, 3]]), times[:1])
    assert (first[:, 0] - second[:, 0]).abs().max() > 1e-4


def test_rotary_scores_depend_on_the_distance_alone():
    """The product of a turned query and a turned key is the same wherever the pair stands, and turns keep lengths."""
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 8, generator=random)
    turned_query, turned_key = (rotate(x.expand(20, 8), *rotary(20, 8, x.device)) for x in (query, key))
    scores = turned_query @ turned_key.T
    for distance in range(-19, 20):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1], atol=1e-5)
    assert not torch.allclose(scores[0, 0], scores[0, 5], atol=1e-3)
    assert torch.allclose(turned_query.norm(dim=1), query.norm())


def test_told_the_time_it_starts_as_the_identity(build, tokens, times):
    """Gates of zero: every branch adds nothing, so the hidden states are the normalised embeddings."""
    network = build("transformer", time_conditioning=True)
    expected = torch.nn.functional.layer_norm(network.embedding(tokens), (16,))
    assert torch.equal(network(tokens, times), expected)


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_a_causal_one_sees_what_is_before_and_nothing_after(shaken, times, time_conditioning):
    """Change each token in turn: its own hidden state and all later ones change, and no earlier one."""
    network = shaken("transformer", causal=True, time_conditioning=time_conditioning)
    one = torch.zeros(1, 12, dtype=torch.int64)
    changed = one + torch.eye(12, dtype=torch.int64)
    with torch.no_grad():
        differences = (network(changed, times[:1].expand(12)) - network(one, times[:1])).abs().amax(dim=2)
    sees = torch.ones(12, 12, dtype=torch.bool).triu()
    assert differences[sees].min() > 2e-4
    assert differences[~sees].max() < 1e-4


def test_a_causal_one_gives_a_beginning_the_states_it_has_within_the_whole(shaken, tokens, times):
    network = shaken("transformer", causal=True)
    with torch.no_grad():
        whole = network(tokens, times)
        for length in range(1, 13):
            assert torch.allclose(network(tokens[:, :length], times), whole[:, :length], atol=1e-5)


def test_being_causal_changes_no_weight(build):
    plain, causal = (build("transformer", causal=causal).state_dict() for causal in (False, True))
    assert plain.keys() == causal.keys()
    assert all(torch.equal(plain[name], causal[name]) for name in plain)


def test_pictures_are_sequences_of_sub_pixels(shaken, tokens, times):
    network = shaken("transformer", shape=(3, 2, 2))
    with torch.no_grad():
        assert network.length == 12
        assert torch.equal(network(tokens, times), shaken("transformer", shape=(12,))(tokens, times))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"network.heads = 3 does not divide network.width = 16"):
        build_network("transformer", 5, (8,), seed=0, layers=1, heads=3, width=16, time_conditioning=False, dropout=0.0)
