"""Networks, which are the denoisers of runs."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from mdpipe.params.errors import BrokenRules, errors_at, make_error
from mdpipe.params.fields import Positive
from mdpipe.params.registry import KindConfig

DropoutRate = Annotated[float, Field(ge=0, lt=1)]
ConvChannels = Annotated[int, Field(ge=4, multiple_of=4)]
"""Group normalization has groups of 4 channels, or 32 groups; sines and cosines of two coordinates fill 4 parts."""


class NetworkConfig(KindConfig, package="mdpipe.networks"):
    """Network that maps tokens, time and class to hidden states.

    One that depends on the time has the setting `time_conditioning`, one with dropout has `dropout`.
    """

    can_be_causal: ClassVar[bool] = False
    """True if the network can be built so that each position depends on earlier ones only."""
    takes_text: ClassVar[bool] = True
    """False if the network is for images only."""
    takes_images: ClassVar[bool] = True
    """False if the network is for text only."""
    takes_classes: ClassVar[bool] = True
    """False if the network cannot be conditioned on classes."""
    patch_size: ClassVar[int] = 1
    """Height and width of images must be a multiple of this."""
    names_elsewhere: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("dit", "ddit"), "transformer here, with time_conditioning: true"),
        **dict.fromkeys(("gpt", "gpt2"), "transformer here, which objective: autoregressive makes causal"),
        "u_net": "unet here",
        "u_vit": "uvit here",
    }
    renamed: ClassVar[dict[str, str]] = {
        "width": "hidden_size",
        "blocks": "num_blocks",
        "middle_width": "transformer_width",
        "layers": "num_layers",
        "heads": "num_heads",
    }

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Return the configuration for a mapping with `kind`.

        Raises:
            ValidationError: The value is not such a mapping, or names no network, or its settings break a rule.
        """
        if isinstance(data, str):
            cls.class_of(data)  # An unknown kind is the first problem.
            rule = (
                f"must be a mapping of the kind and its settings, as {{kind: {data}, ...}}: dvc.yaml looks up the kind"
            )
            raise errors_at([((), data, make_error(f"must be {rule}"))])
        return super().parse(data)


class TransformerConfig(NetworkConfig):
    """A transformer over the token sequence."""

    can_be_causal: ClassVar[bool] = True

    kind: Literal["transformer"] = "transformer"
    time_conditioning: bool = False
    """Condition the network on the time. Without it, one network serves every schedule and the any-order bound."""
    dropout: DropoutRate = 0.0
    """Dropout rate: of whole channels of each residual branch, of attention probabilities and of the embedding."""
    num_layers: Positive
    """Number of transformer blocks."""
    num_heads: Positive
    """Attention heads; `hidden_size` must be a multiple of twice this number."""
    hidden_size: Positive
    """Width of the hidden states."""
    embed_dim: Positive | None = None
    """Width of a factored token embedding, projected to `hidden_size`; null for `hidden_size` itself. The paper's text8
    networks have 64."""
    qk_norm: bool = False
    """Normalize queries and keys of each head by their root mean square, times a learned weight per channel, before
    the rotary embedding (Dehghani et al. 2023, arXiv:2302.05442)."""
    zero_init: bool = False
    """Initialize the last projection of attention and MLP to 0, so that each branch adds 0 at first. Branches with a
    gate, in a conditional network, do so anyway and are left as they are: two factors of 0 would never move."""
    mlp: Literal["glu", "relu_squared"] = "glu"
    """`glu`: W_out (a sigmoid(b)) with (a, b) = W_in x, 8/3 `hidden_size` wide, as in the paper. `relu_squared`:
    W_out relu(W_in x)^2, 4 `hidden_size` wide, of about as many weights (So et al. 2021, arXiv:2109.08668)."""
    value_embeddings: Annotated[int, Field(ge=0)] = 0
    """Tables with a vector per token that are added to the values of attention, initially 0. Table i serves the layers
    i and num_layers - `value_embeddings` + i, counted from 0."""
    unet_skips: bool = False
    """Add what layer i returns, times a learned weight that starts at 1, to the input of layer num_layers - 1 - i, for
    all pairs with a layer in between."""

    @property
    def num_skips(self) -> int:
        """Return the number of pairs of layers with a skip connection."""
        return (self.num_layers - 1) // 2 if self.unet_skips else 0

    def broken_rules(self) -> BrokenRules:
        """Yield that the heads do not have an even number of channels each, or that tables or skips have no layers."""
        if 2 * self.value_embeddings > self.num_layers:
            yield ("value_embeddings",), f"must be at most half of num_layers = {self.num_layers}"
        if self.unet_skips and not self.num_skips:
            yield ("unet_skips",), f"must be false at num_layers = {self.num_layers}; pairs need at least 3 layers"
        if self.hidden_size % (2 * self.num_heads):
            even = [n for n in range(1, self.hidden_size // 2 + 1) if self.hidden_size % (2 * n) == 0]
            yield (
                ("num_heads",),
                f"does not divide hidden_size = {self.hidden_size} into even parts (rotary embeddings turn pairs of"
                f" channels); allowed at this size: {', '.join(map(str, even)) or 'none'}",
            )


class ConvNetConfig(NetworkConfig):
    """A convolutional network for images."""

    takes_text: ClassVar[bool] = False

    time_conditioning: bool = False
    """Condition the network on the time. Without it, one network serves every schedule and the any-order bound."""
    dropout: DropoutRate = 0.0
    """Dropout rate."""
    hidden_size: ConvChannels
    """Number of channels."""
    num_blocks: Positive
    """Residual blocks of the encoder; the decoder has one more."""
    init: Literal["md4", "ordinal"] = "md4"
    """Initial weights: `md4` as in the official implementation; `ordinal` starts with similar embeddings for similar
    pixel values, which helps short training."""


class UNetConfig(ConvNetConfig):
    """A convolutional network at full resolution with skip connections, for images."""

    kind: Literal["unet"] = "unet"
    dropout: DropoutRate = 0.0
    """Dropout rate of single elements before the second convolution of a block."""


class UViTConfig(ConvNetConfig):
    """The U-Net with a transformer over patches of 2 x 2 pixels in the middle, for images of even size."""

    patch_size: ClassVar[int] = 2

    kind: Literal["uvit"] = "uvit"
    transformer_width: ConvChannels
    """Hidden size of the transformer in the middle; a multiple of `num_heads`."""
    num_layers: Positive
    """Transformer blocks in the middle."""
    num_heads: Positive
    """Attention heads of the transformer in the middle."""
    qk_norm: bool = False
    """Normalize queries and keys of each head by their root mean square, times a learned weight per channel."""
    dropout: DropoutRate = 0.0
    """Dropout rate of single elements, before the second convolution of a block and within the transformer."""

    def broken_rules(self) -> BrokenRules:
        """Yield that the heads do not have the same number of channels."""
        if self.transformer_width % self.num_heads:
            yield ("num_heads",), f"does not divide transformer_width = {self.transformer_width}"
