"""BLEU, as sacrebleu computes it."""

from collections.abc import Callable, Sequence

from sacrebleu.metrics.bleu import BLEU

from common.exits import ExampleError
from cpuaccel.errors import first_line
from translation.languages import short_code

Score = Callable[[Sequence[str], Sequence[str]], dict[str, float]]


def bleu(target_lang: str) -> Score:
    """Return what scores translations into a language.

    Returns:
        A function of the translations and the right ones, which returns ``bleu``, from 0 to 100.

    Raises:
        ExampleError: sacrebleu needs another package to split the words of the language.
    """
    try:
        metric = BLEU(trg_lang=short_code(target_lang))
    except (ImportError, RuntimeError) as error:
        raise ExampleError(f"BLEU for --target_lang {target_lang}: {first_line(error)}") from error

    def score(translations: Sequence[str], known: Sequence[str]) -> dict[str, float]:
        return {"bleu": round(metric.corpus_score(translations, [known]).score, 6)}

    return score
