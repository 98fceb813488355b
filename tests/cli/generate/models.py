"""Tiny language models and tokenizers in folders, and what the originals generate."""

from pathlib import Path
from typing import Any

import torch
import transformers

PROMPT = "w3 w14 w15"
TOKENS = 24
SHORT = ("--max-new-tokens", TOKENS)
ORIGINAL = ("--backends", "jit")
"""A pipeline that does not generate, so that nothing is built."""

SPECIAL = ["<unk>", "<s>", "</s>", "<user>", "<bot>"]
CHAT = (
    "{% for m in messages %}<user> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
VOCABULARY = 64
EOS = SPECIAL.index("</s>")
SPEED = r"\d+ tokens, [\d.]+ tokens/s, first token after [\d.]+ s"


def make_tokenizer(template: str | None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*SPECIAL, *(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    backend = Tokenizer(level)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer: Any = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, additional_special_tokens=["<user>", "<bot>"], **names
    )
    tokenizer.chat_template = template
    return tokenizer


def make_llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=EOS,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # otherwise all tokens are about as probable
        model.lm_head.weight[EOS] = 0  # never the most probable
    return model.eval()


def saved(model: Any, template: str | None, folder: Path) -> Path:
    model.save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder


def expected(folder: Path, prompt: str, **options: object) -> str:
    """The text that the original generates."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder))
    kind: Any = transformers.AutoModelForCausalLM
    if "t5" in folder.name:
        kind = transformers.AutoModelForSeq2SeqLM
    model = kind.from_pretrained(str(folder)).eval()
    inputs = tokenizer(prompt, return_tensors="pt")
    arguments: dict[str, Any] = {"max_new_tokens": TOKENS, "do_sample": False, **options}
    output = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask, **arguments)
    skipped = 1 if "t5" in folder.name else inputs.input_ids.shape[1]
    return str(tokenizer.decode(output[0, skipped:], skip_special_tokens=True))
