"""`mdpipe generate`: samples of a run by hand, from nothing or after a prompt."""

import torch

from mdpipe.commands.interactive import encode_prompt, fill, open_run
from mdpipe.commands.sample_files import require_sample_path, write_images, write_texts
from mdpipe.commands.sampling_options import SamplingOptions
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.stages.sampling import unknown


def generate(run: str, options: SamplingOptions, count: int, prompt: str, length: int | None, out: str | None) -> None:
    """Write texts to `out`, or print them; write pictures to `out`, or to RUN.png. See `sample_files` for names.

    Raises:
        ValueError: the model is missing or broken, an option does not fit it, `out` cannot be written, or the prompt
            leaves no room or cannot be spelled by the run's tokenizer.
    """
    trained = open_run(run, options)
    if trained.modality == "image":
        out = out or f"{run}.png"
        require_sample_path(out, "image")
        if prompt or length is not None:
            raise ValueError(f"run {run!r} draws pictures, which have no --prompt and no --length; see `mdpipe infill`")
        write_images(trained, fill(trained, unknown(trained, count), options).tokens, out)
        return
    require_sample_path(out, "text")
    tokenizer = load_tokenizer(trained.directory)
    [ids] = encode_prompt(tokenizer, [prompt])
    given = torch.from_numpy(ids)
    tokens = unknown(trained, count, length)
    if len(given) >= tokens.shape[1]:
        raise ValueError(
            f"the prompt has {len(given)} tokens and leaves nothing of {tokens.shape[1]}; give a larger --length"
        )
    tokens[:, : len(given)] = given
    write_texts(tokenizer, fill(trained, tokens, options).tokens, out)
