"""The model, the tokenizer and the prompt of ``cpuaccel generate``."""

from typing import TYPE_CHECKING, Any

from cpuaccel.errors import ModelError, describe_error, first_line, one_line

if TYPE_CHECKING:
    import torch

    from cpuaccel.cli.models.source import Source

TOKENIZER_FILES = ("*token*", "vocab*", "*.model", "*.gguf")


def load(name: str, dtype: str | None) -> "tuple[torch.nn.Module, Any]":
    """Load a model in eval mode, and its tokenizer."""
    from cpuaccel.cli.models.load import import_transformers
    from cpuaccel.cli.models.source import CONFIG_PREFIX, FOLDER_REMEDY, find_source
    from cpuaccel.model.precision import dtype_of

    if name.startswith(CONFIG_PREFIX):
        raise ModelError(f"{name} has no tokenizer. {FOLDER_REMEDY}")
    source = find_source(name)
    arguments = {"trust_remote_code": False, **source.arguments}
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(source.path, **arguments)
    except Exception as error:  # Transformers raises any type on invalid files
        raise _not_loaded(name, error) from error
    model_class = _model_class(transformers, config, name)
    tokenizer = _load_tokenizer(transformers, source, arguments, name)
    try:
        model: torch.nn.Module = model_class.from_pretrained(
            source.path, config=config, torch_dtype=dtype_of(dtype) or "auto", **arguments
        )
    except Exception as error:
        raise _not_loaded(name, error) from error
    return model.eval(), tokenizer


def _load_tokenizer(
    transformers: Any, source: "Source", arguments: dict[str, Any], name: str
) -> Any:
    remedy = (
        "Save that of the model it was made from into a folder with the model: "
        "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
    )
    folder = source.folder
    if folder is not None and not any(map(list, map(folder.glob, TOKENIZER_FILES))):
        raise ModelError(f"the folder {name} has no tokenizer. {remedy}")
    try:
        return transformers.AutoTokenizer.from_pretrained(source.path, **arguments)
    except Exception as error:
        reason = one_line(" ".join(str(error).split())) or type(error).__name__
        raise ModelError(f"the tokenizer of {name} can't be loaded: {reason}. {remedy}") from error


def _model_class(transformers: Any, config: Any, name: str) -> Any:
    """Return the class that the config names, or one that chooses by the type of the config."""
    named = (config.architectures or [""])[0]
    found: Any = getattr(transformers, named, None)
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if not is_model:  # a config may name any attribute of transformers
        auto = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
        return getattr(transformers, auto)
    remedy = "Pass a language model, such as a LlamaForCausalLM or a T5ForConditionalGeneration"
    if not found.can_generate():
        raise ModelError(f"{name} is a {named}, which has no generate. {remedy}")
    if found.main_input_name != "input_ids":
        raise ModelError(f"{name} is a {named}, whose input is not text. {remedy}")
    return found


def is_mapped(model: "torch.nn.Module") -> bool:
    """Whether most of a model's weights are in memory that is mapped from its checkpoint."""
    from cpuaccel.generation.weights.mapped_memory import mapped

    weights = list(model.parameters())
    return 2 * sum(w.numel() for w in mapped(weights)) > sum(w.numel() for w in weights)


def _not_loaded(name: str, error: Exception) -> ModelError:
    return ModelError(
        f"{name} can't be loaded: {first_line(error)}. Pass a local folder or a hub id, which "
        "needs a network"
    )


def encode(
    name: str, tokenizer: Any, prompt: str, chat: bool | None
) -> "tuple[dict[str, torch.Tensor], bool]":
    """Tokenize a prompt.

    Returns:
        The inputs of the model, shape (1, tokens), and whether the chat template was applied.
    """
    from cpuaccel.model.signature import MASK

    template = getattr(tokenizer, "chat_template", None)
    if chat is None:
        chat = bool(template)
    if chat and not template:
        raise ModelError(f"the tokenizer of {name} has no chat template. Leave out --chat")
    try:
        if chat:
            encoded = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
        else:
            encoded = tokenizer(prompt, return_tensors="pt")
    except Exception as error:  # templates raise any type
        raise ModelError(
            f"the {'chat template' if chat else 'tokenizer'} of {name} raised "
            f"{describe_error(error)}. "
            f"{'Pass --no-chat' if chat else 'Change the prompt'}"
        ) from error
    # Some tokenizers return token types, which decoders don't accept.
    inputs = {key: encoded[key] for key in ("input_ids", MASK) if key in encoded}
    if not inputs["input_ids"].numel():
        raise ModelError(
            f"the tokenizer of {name} has no tokens for the prompt {prompt!r}. Change the prompt"
        )
    return inputs, chat
