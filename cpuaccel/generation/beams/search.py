"""Transformers' beam search, in which its loop reads the scores of a few tokens only."""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation.logits_process import LogitsProcessor
from transformers.utils.generic import ModelOutput

from cpuaccel.generation.beams.best_tokens import best_tokens
from cpuaccel.generation.beams.processors import process
from cpuaccel.model.redirected import Method, call_of, redirected_further

SEARCH, CONTINUE = "_beam_search", "_get_top_k_continuations"
"""The methods of Transformers that search, and that choose what the beams go on with."""


def parts(model: PreTrainedModel) -> dict[str, object]:
    """Attributes by which ``generate`` of a model searches with beams."""
    return {SEARCH: Method(_search)} if _is_known(type(model)) else {}


def _is_known(kind: type[PreTrainedModel]) -> bool:
    """Whether a model searches by methods of Transformers that work together as is needed here."""
    methods = [getattr(GenerationMixin, name, None) for name in (SEARCH, CONTINUE)]
    return (
        None not in methods
        and [getattr(kind, name) for name in (SEARCH, CONTINUE)] == methods
        and {CONTINUE, "log_softmax"} <= {*GenerationMixin._beam_search.__code__.co_names}
    )


def _search(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: Iterable[LogitsProcessor],
    generation_config: GenerationConfig,
    **kwargs: object,
) -> object:
    """Search as ``GenerationMixin`` does, which gets all scores where it returns or samples them."""
    config, search = generation_config, cast(Callable[..., object], GenerationMixin._beam_search)
    returned = config.return_dict_in_generate and (config.output_scores or config.output_logits)
    if not config.do_sample and not returned:
        candidates = Candidates(call_of(model), logits_processor, config)
        further = {CONTINUE: Method(candidates.continuations)}
        model = cast(PreTrainedModel, redirected_further(model, candidates.forward, further))
        logits_processor = candidates.scores
    return search(
        model,
        input_ids,
        logits_processor=logits_processor,
        generation_config=config,
        **kwargs,
    )


class Candidates:
    """The best tokens of each beam, which are all that a search reads of a model's scores.

    The loop takes them for a small vocabulary. What it computes of the model's output before the
    processors is dropped: here that is done with all scores.
    """

    def __init__(
        self,
        forward: Callable[..., object],
        processors: Iterable[LogitsProcessor],
        config: GenerationConfig,
    ) -> None:
        """Take the model's call, the processors of its scores, and how to search."""
        self._forward = forward
        self._processors = list(processors)
        ends = config._eos_token_tensor
        number = max(2, 1 + (0 if ends is None else len(ends)))
        self._number = number * cast(int, config.num_beams)
        self._logits = self._tokens = torch.empty(0)

    def forward(self, *args: object, **kwargs: object) -> object:
        """Call the model. Of its logits the loop gets as many as there are candidates."""
        output = self._forward(*args, **kwargs)
        assert isinstance(output, ModelOutput)
        self._logits = output["logits"][:, -1]
        output["logits"] = output["logits"][:, -1:, : self._number]
        return output

    def scores(self, ids: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Return the scores of the candidates, best first, shape (rows, candidates)."""
        logits, self._logits = self._logits, self._tokens
        scores = torch.log_softmax(logits, -1, dtype=torch.float32)
        scores = process(self._processors, ids, scores)
        best, self._tokens = best_tokens(scores, min(self._number, scores.shape[-1]))
        return best

    def continuations(
        self, model: PreTrainedModel, *, cur_len: int, decoder_prompt_len: int, **kwargs: object
    ) -> object:
        """Choose continuations as ``GenerationMixin`` does, of tokens of the whole vocabulary."""
        assert cast(int, kwargs["beams_to_keep"]) <= self._number
        chosen = cast(Callable[..., tuple[torch.Tensor, ...]], GenerationMixin._get_top_k_continuations)(
            model, cur_len=cur_len, decoder_prompt_len=decoder_prompt_len, **kwargs
        )
        _, sequences, beams = chosen
        rows = beams[..., cur_len - decoder_prompt_len].long()
        sequences[..., cur_len] = self._tokens[rows, sequences[..., cur_len]]
        return chosen
