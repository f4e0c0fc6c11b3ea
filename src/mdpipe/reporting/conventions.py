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
    (
        "genmd4 bound",
        "The same kind of bound, with a masking schedule learned for each token: alpha(t) = 1 - t^w with an exponent w"
        " of the token's own.",
    ),
    (
        "score-entropy bound",
        "The same kind of bound for a model of the ratios between the probabilities of a token and of the mask: its"
        " diffusion part is their score entropy.",
    ),
    (
        "any-order bound",
        "The bits of the tokens revealed one by one in an order drawn at random, which are at least those of the text"
        " or image, by Monte Carlo with the given number of draws of (how many are known, which) an example.",
    ),
    (
        "d3pm bound",
        "The same kind of bound for a process of finitely many steps, its steps drawn at random. With more steps it"
        " comes down to the bound in continuous time.",
    ),
    (
        "exact likelihood",
        "The bits that the model needs, no bound: autoregressive models give every token its probability after those"
        " before it, and nothing is drawn. A bound that is larger need not mean a worse model.",
    ),
    (
        "difference",
        "Bits of the row's run minus bits of the run under against, in the unit of the row: negative where the row's"
        " run needs fewer. The standard error is that of the differences example by example, so what makes an example"
        " hard for both runs cancels, and it is mostly far smaller than the errors of the two values.",
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
        "network calls",
        "How often the network ran until the last token of the samples was drawn; a call on a part of the batch counts"
        " as a call.",
    ),
    (
        "entropy",
        "The entropy of the frequencies of tokens in all samples pooled, in bits per token, which a collapsed sampler"
        " would lower. Its standard error takes the samples as independent, not the tokens of one: it is that of the"
        " mean over samples of minus the logarithm of their tokens' frequencies.",
    ),
    (
        "samplers",
        "The column bits says what the judge, another model, needs to describe the samples, with one standard error of"
        " the mean over samples. Grey rows, called data, are held-out data under the same judge: good samples come near"
        " to them in bits and in entropy. Far fewer bits than the data's are no success: such samples are too plain,"
        " which mostly shows as a lower entropy. Column tokens/s is the speed of sampling where it was measured.",
    ),
    (
        "learned schedules",
        "Token i is visible at time t with probability 1 - t^w, w being its exponent. Sampling runs t from 1, where all"
        " is masked, to 0, so tokens with a large exponent are revealed early and those with a small one late.",
    ),
)
