"""What each reported number means, in the words that stand beside the tables. Pairs of a term and its meaning."""

CONVENTIONS: tuple[tuple[str, str], ...] = (
    (
        "value ± stderr",
        "The mean over the whole split and one standard error of it as an estimate for all data of this kind, the"
        " examples being a sample of them; both rounded to the error's first digit, or to its second after a 1. Numbers"
        " without ± are exact for this split. The CSV files have six digits, and stderr_draws besides: the error as an"
        " estimate for just these examples, which comes from the random draws of times and masks alone.",
    ),
    (
        "md4 bound",
        "An upper bound on the bits that the model needs, so but for chance the truth is not above it: reconstruction +"
        " prior + diffusion, the last by Monte Carlo with the given number of draws of (time, mask) an example. Every"
        " example of the split counts, the last short window of a text included.",
    ),
    ("bits/dim", "Bits divided by the number of channel values (width × height × channels) of the images."),
    ("bits/char, bits/token", "Bits divided by the number of characters, or of tokens of the run's own tokenizer."),
    (
        "bits/byte",
        "Bits divided by the number of UTF-8 bytes of the text: the number to compare between tokenizers. The bits are"
        " those of all tokens, the separators between documents too. A run on the 27 letters sees normalized text, and"
        " its bits and bytes are of that text.",
    ),
    ("perplexity", "2 to the power of bits/token. It depends on the tokenizer, whose tokens it is about."),
    (
        "references",
        "Grey rows, from no model of ours, on the same data: what a general-purpose compressor at its strongest setting"
        " leaves of the split (xz and bzip2 of the text as one file, PNG and lossless WebP of the pictures as one"
        " sheet), and unigram, the bits at which independent tokens with the training split's frequencies describe it.",
    ),
    (
        "zero-shot",
        "The whole of a source that the run was not trained on, as one stream of the run's own tokens, cut into"
        " windows that do not overlap; each token counts once.",
    ),
    (
        "samples",
        "The column network calls says how often the network ran; entropy is that of the tokens of all samples pooled,"
        " in bits per token, which a collapsed sampler would lower.",
    ),
)
