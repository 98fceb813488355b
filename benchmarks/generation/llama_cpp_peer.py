"""Generate with llama.cpp, one completion for each line on standard input; see llama_cpp.py.

    python llama_cpp_peer.py MODEL.gguf THREADS WORDS TOKENS

Answers each line with one line of JSON: the timings that llama.cpp's server reports. It runs in an
environment of its own, which has xllamacpp and nothing else.
"""

import json
import os
import sys

import xllamacpp


def main() -> None:
    """Load the model, and serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library logs to standard output
    file, threads, words, tokens = sys.argv[1], *map(int, sys.argv[2:])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.n_ctx = words + tokens + 64
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)
    request = {
        "prompt": " the" * words,
        "n_predict": tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "cache_prompt": False,
    }
    for _ in sys.stdin:
        print(json.dumps(server.handle_completions(request)["timings"]), file=answers, flush=True)


if __name__ == "__main__":
    main()
