"""Generate with OpenVINO GenAI, once for each line on standard input; see openvino_genai.py.

    python -I openvino_genai_peer.py FOLDER WORDS TOKENS PROPERTIES

PROPERTIES are those of the compiled model, as JSON. Answers each line with one line of JSON: the
number of new tokens, and the seconds to the first one and after it, as OpenVINO GenAI measures
them. It runs in an environment of its own, which has openvino-genai and nothing else.
"""

import json
import os
import sys

import numpy as np
import openvino
import openvino_genai


def main() -> None:
    """Load the model, and serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library logs to standard output
    folder, words, tokens, properties = sys.argv[1:]
    pipeline = openvino_genai.LLMPipeline(folder, "CPU", **json.loads(properties))
    random = np.random.default_rng(0)
    config = openvino_genai.GenerationConfig(
        max_new_tokens=int(tokens),
        ignore_eos=True,
        # It wants an end of text, though it ignores it.
        eos_token_id=2,
        stop_token_ids={2},
        do_sample=False,
    )
    for _ in sys.stdin:
        # Another one each time, because it keeps the states of prompts.
        prompt = openvino.Tensor(random.integers(3, 500, (1, int(words))))
        metrics = pipeline.generate(prompt, config).perf_metrics
        first = metrics.get_ttft().mean / 1000
        rest = metrics.get_generate_duration().mean / 1000 - first
        answer = {"tokens": metrics.get_num_generated_tokens(), "first": first, "rest": rest}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
