"""Definitions of the reported numbers for the report page and docs/numbers.md: pairs of a term and its meaning."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
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
    (
        "unit",
        "Of value, difference, loss and entropy: bits per token, under the name of what the tokens are. bits/dim:"
        " channel values (width × height × channels) of images. bits/char: characters of text in the 27 letters."
        " bits/token: tokens of any other tokenizer, bytes included. Separators between documents, and those that"
        " packing puts at the ends of blocks, are tokens like all others.",
    ),
    (
        "bits/byte",
        "The bits of all tokens, separators included, divided by the UTF-8 bytes of the text: the number to compare"
        " between tokenizers. The text is that of the documents, without separators. A tokenizer that loses something"
        " is measured on what its tokens decode to. For the 27 letters that is the normalized text, in which separators"
        " are spaces and count, so bits/byte and bits/char are the same number. bits_per_char in the CSV files divides"
        " by the characters of the same text.",
    ),
    ("perplexity", "2 to the power of the bits per token. It depends on the tokenizer, whose tokens it is about."),
    (
        "condition",
        "What the model is given besides the data. With the class label, the value is a bound on the bits of the images"
        " given their classes, which may be lower than any bound without: a label is worth up to log2 of the number of"
        " classes in bits per image. A difference includes that where condition and against condition differ.",
    ),
    (
        "references",
        "Gray rows, from no model of ours, on the same data: what a general-purpose compressor at its strongest setting"
        " leaves of the split, and unigram, the bits at which independent tokens with the training split's frequencies"
        " describe it. xz and bzip2 read the text as one file, with one byte for every separator between documents,"
        " since models pay for those too: a space for the 27 letters, a NUL otherwise. Separators at the ends of blocks"
        " are left out. PNG and lossless WebP read the images as one sheet. The bits are divided like those of models.",
    ),
    (
        "zero-shot",
        "The whole of a source that the run was not trained on, as one stream of the run's own tokens, cut into"
        " windows that do not overlap; each token counts once. Bounds and references are of the whole source, which the"
        " column split calls all.",
    ),
    (
        "guidance",
        "The scale s of classifier-free guidance. Samples are drawn from the log-probabilities (1 + s) × conditional −"
        " s × unconditional, normalized. 0 is the conditional model; papers that write s for 1 + s call it 1.",
    ),
    (
        "final loss",
        "The mean of the last rows of the training curve; final loss rows says how many: 20, or all of a shorter curve."
        " A row is the mean over the steps since the row before. It is the loss on training batches under the weights"
        " of each step, not the bound of the averaged weights on held-out data.",
    ),
    (
        "examples",
        "Images, or windows of the model's length, one after another, the last of which may be shorter; training may"
        " read windows that begin anywhere. The contamination windows of a dataset are different ones: windows of 50"
        " characters of a held-out split, of which leaked is the share that also occurs in the training text.",
    ),
    (
        "network calls",
        "How often the network ran until the last token of the samples was drawn; a call on a part of the batch counts"
        " as a call.",
    ),
    (
        "entropy",
        "The entropy of the frequencies of tokens in all samples pooled, in the row's unit, which a collapsed sampler"
        " would lower. Its standard error takes the samples as independent, not the tokens of one: it is that of the"
        " mean over samples of minus the logarithm of their tokens' frequencies.",
    ),
    (
        "samplers",
        "The column bits says what the judge, another model, needs to describe the samples, with one standard error of"
        " the mean over samples. Grey rows, called data, are held-out data under the same judge: good samples come near"
        " to them in bits and in entropy. Far fewer bits than the data's are no success: such samples are too plain,"
        " which mostly shows as a lower entropy. Column tokens/s is the speed of sampling where it was measured."
        " Samples are drawn and judged without a class label.",
    ),
    (
        "learned schedules",
        "Token i is visible at time t with probability 1 - t^w, w being its exponent. Sampling runs t from 1, where all"
        " is masked, to 0, so tokens with a large exponent are revealed early and those with a small one late.",
    ),
)
