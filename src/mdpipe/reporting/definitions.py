"""Definitions of the reported numbers for the report page and docs/numbers.md: pairs of a term and its meaning."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "value ± stderr",
        "The mean over the whole split and its standard error as an estimate for all data of this kind, with the"
        " examples as a sample of them. Both are rounded to the error's first digit, or to its second after a 1."
        " Numbers without ± are exact for this split. The CSV files have six digits, and also stderr_draws: the error"
        " as an estimate for exactly these examples, which comes only from the random times and masks.",
    ),
    (
        "md4 bound",
        "An upper bound on the bits that the model needs; up to the standard error, the true number is not larger. It"
        " is the sum of reconstruction, prior and diffusion, the last by Monte Carlo with the given number of draws of"
        " (time, mask) per example. Every example of the split counts, including the last, shorter window of a text.",
    ),
    (
        "genmd4 bound",
        "The same kind of bound with a masking schedule learned for each token: alpha(t) = 1 - t^w with an exponent w"
        " per token.",
    ),
    (
        "score-entropy bound",
        "The same kind of bound for a model of the ratios between the probabilities of a token and of the mask: its"
        " diffusion part is their score entropy.",
    ),
    (
        "any-order bound",
        "The bits of the tokens unmasked one by one in a random order, which are at least those of the text or image,"
        " by Monte Carlo with the given number of draws of (number of unmasked tokens, their positions) per example.",
    ),
    (
        "d3pm bound",
        "The same kind of bound for a process with finitely many steps, by Monte Carlo over the steps. With more"
        " steps it decreases to the bound in continuous time.",
    ),
    (
        "exact likelihood",
        "The bits that the model needs, not a bound: an autoregressive model gives every token its probability after"
        " the tokens before it, and nothing is random. A bound that is larger does not imply a worse model.",
    ),
    (
        "difference",
        "Bits of the row's run minus bits of the run in column against, in the unit of the row: negative if the row's"
        " run needs fewer. The standard error is that of the differences example by example. What makes an example"
        " hard for both runs cancels, so it is usually much smaller than the errors of the two values.",
    ),
    (
        "unit",
        "The unit of value, difference, loss and entropy: bits per token, named after the kind of token. bits/dim:"
        " channel values (width × height × channels) of images. bits/char: characters of text with the 27-letter"
        " tokenizer. bits/token: tokens of any other tokenizer, including bytes. Separators between documents, and"
        " those that packing puts at the ends of blocks, count as tokens.",
    ),
    (
        "bits/byte",
        "The bits of all tokens, including separators, divided by the UTF-8 bytes of the text: the number to compare"
        " between tokenizers. The text is that of the documents, without separators. A lossy tokenizer is measured on"
        " the text that its tokens decode to. For the 27-letter tokenizer this is the normalized text, in which"
        " separators are spaces and count, so bits/byte and bits/char are the same number. bits_per_char in the CSV"
        " files divides by the characters of the same text.",
    ),
    (
        "perplexity",
        "2 to the power of the bits per token. It depends on the tokenizer; do not compare it between tokenizers.",
    ),
    (
        "condition",
        "What the model is given in addition to the data. With the class label, the value is a bound on the bits of"
        " the images given their classes, which may be lower than any bound without: a label is worth up to log2 of"
        " the number of classes in bits per image. If condition and against condition differ, the difference includes"
        " this.",
    ),
    (
        "references",
        "Gray rows, not from our models, on the same data: the size of the split after a general-purpose compressor"
        " at its strongest setting, and unigram, the bits of independent tokens with the training split's frequencies."
        " xz and bzip2 read the text as one file with one byte for every separator between documents, since models pay"
        " for separators too: a space for the 27-letter tokenizer, a NUL otherwise. Separators at the ends of blocks"
        " are left out. PNG and lossless WebP read the images as one sheet. The bits are divided like those of models.",
    ),
    (
        "zero-shot",
        "A whole source that the run was not trained on, as one stream of the run's own tokens, cut into windows that"
        " do not overlap; each token counts once. Bounds and references cover the whole source, which column split"
        " calls all.",
    ),
    (
        "guidance",
        "The scale s of classifier-free guidance. Samples are drawn from the log-probabilities (1 + s) × conditional"
        " − s × unconditional, normalized. 0 is the conditional model; papers that write s for 1 + s call it 1.",
    ),
    (
        "final loss",
        "The mean of the last rows of the training curve; final loss rows is their number: 20, or all of a shorter"
        " curve. A row is the mean over the steps since the previous row. It is the loss on training batches with the"
        " weights of each step, not the bound of the averaged weights on held-out data.",
    ),
    (
        "examples",
        "Images, or consecutive windows of the model's length, the last of which may be shorter; training may read"
        " windows that begin anywhere. The contamination windows of a dataset are different: windows of 50 characters"
        " of a held-out split; leaked is the fraction of them that also occurs in the training text.",
    ),
    (
        "network calls",
        "The number of forward passes of the network until the last token of the samples was drawn; a call on a part"
        " of the batch counts as one call.",
    ),
    (
        "entropy",
        "The entropy of the token frequencies in all samples pooled, in the row's unit; a collapsed sampler lowers"
        " it. Its standard error treats the samples as independent, but not the tokens within a sample: it is that of"
        " the mean over samples of minus the logarithm of their tokens' frequencies.",
    ),
    (
        "samplers",
        "Column bits is what the judge, another model, needs to describe the samples, with the standard error of the"
        " mean over samples. Gray rows, called data, are held-out data under the same judge: good samples have similar"
        " bits and entropy. Far fewer bits than the data are not a success: such samples are too simple, which usually"
        " shows as a lower entropy. Column tokens/s is the speed of sampling where it was measured. Samples are drawn"
        " and judged without a class label.",
    ),
    (
        "learned schedules",
        "Token i is unmasked at time t with probability 1 - t^w, where w is its exponent. Sampling runs t from 1,"
        " where all is masked, to 0, so tokens with a large exponent are unmasked early and those with a small one"
        " late.",
    ),
)
