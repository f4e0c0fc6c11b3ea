"""What each reported number means, in the words that stand beside the tables. Pairs of a term and its meaning."""

CONVENTIONS: tuple[tuple[str, str], ...] = (
    (
        "value ± stderr",
        "The mean over the whole split and one standard error of it, rounded together: to the error's first digit, or to "
        "its second after a 1. Numbers without ± are exact. The CSV files have six digits, and stderr_draws besides, the "
        "part of the error that the random draws of times and masks account for.",
    ),
    (
        "md4 bound",
        "An upper bound on the bits that the model needs, so the truth is not above it but for chance: reconstruction + "
        "prior + diffusion, the last by Monte Carlo with the given number of draws of (time, mask) an example. Every "
        "example of the split counts, the last short window of a text included.",
    ),
    ("bits/dim", "Bits divided by the number of channel values (width × height × channels) of the images."),
    ("bits/char, bits/token", "Bits divided by the number of characters, or of tokens of the run's own tokenizer."),
    (
        "bits/byte",
        "Bits divided by the number of UTF-8 bytes of the text that the tokens stand for: the number to compare between "
        "tokenizers. A run on the 27 letters sees normalized text, and its bits and bytes are of that text.",
    ),
    ("perplexity", "2 to the power of bits/token. It depends on the tokenizer, whose tokens it is about."),
    (
        "references",
        "Grey rows, from no model of ours, on the same data in the same unit: the size that a general-purpose compressor "
        "leaves (xz, bzip2 for text; PNG, lossless WebP for images), and unigram entropy, the bits at which independent "
        "tokens with the training split's frequencies would describe the split.",
    ),
    (
        "zero-shot",
        "All text of a source that the run was not trained on, cut into windows as the run's own data are.",
    ),
    (
        "samples",
        "network calls is how often the network ran for one batch of samples; entropy is that of the tokens of all "
        "samples pooled, in bits per token, which a collapsed sampler would lower.",
    ),
)
