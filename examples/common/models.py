"""Loading models and processors of Transformers from folders and from the hub."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import transformers

from common.arguments import ModelArguments
from common.exits import ExampleError, UsageError
from cpuaccel.errors import first_line


def load_model(
    auto_class: Any, arguments: ModelArguments, unneeded: Collection[str] = ()
) -> transformers.PreTrainedModel:
    """Load a model in float32 and eval mode.

    Args:
        auto_class: such as ``AutoModelForQuestionAnswering``.
        arguments: the options that name the model.
        unneeded: last parts of the names of weights that may be missing.

    Raises:
        UsageError: the folder does not exist.
        ExampleError: the model can't be loaded, or has no weights for this task.
    """
    # Transformers 5 shows a progress bar even for weights that load in a second.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = _load("config", transformers.AutoConfig, arguments.config_name, arguments)
    model, loading = _load(
        "model",
        auto_class,
        None,
        arguments,
        config=config,
        output_loading_info=True,
    )
    missing = sorted(
        name for name in loading["missing_keys"] if name.rpartition(".")[2] not in unneeded
    )
    if missing:
        raise ExampleError(
            f"--model_name_or_path {arguments.model_name_or_path} has no weights for "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}, so its outputs would "
            f"be random. Pass a model that was trained as a {type(model).__name__}"
        )
    assert isinstance(model, transformers.PreTrainedModel)
    return model.float()  # type: ignore[no-untyped-call,no-any-return]


def load_processor(auto_class: Any, arguments: ModelArguments, **options: object) -> Any:
    """Load the tokenizer or processor of a model.

    Args:
        auto_class: such as ``AutoTokenizer`` or ``AutoFeatureExtractor``.
        arguments: the options that name the model.
        options: further arguments of ``from_pretrained``.

    Raises:
        UsageError: the folder does not exist.
        ExampleError: it can't be loaded.
    """
    return _load(
        "tokenizer or processor", auto_class, arguments.tokenizer_name, arguments, **options
    )


def _load(
    what: str, auto_class: Any, name: str | None, arguments: ModelArguments, **options: object
) -> Any:
    source = name or arguments.model_name_or_path
    folder = Path(source).expanduser()
    if not folder.exists() and (folder.is_absolute() or source.startswith((".", "~"))):
        raise UsageError(f"the {what} {source}: no such folder")
    try:
        return auto_class.from_pretrained(
            str(folder) if folder.is_dir() else source,
            cache_dir=arguments.cache_dir,
            revision=arguments.model_revision,
            token=arguments.token,
            trust_remote_code=arguments.trust_remote_code,
            **options,
        )
    except Exception as error:  # corrupt files raise errors of any parser
        if folder.is_dir():
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            remedy = f"The folder contains {there}. Pass a folder written by save_pretrained"
        else:
            remedy = "Pass a local folder written by save_pretrained; the hub needs a network"
        raise ExampleError(
            f"the {what} {source} can't be loaded: {first_line(error)}. {remedy}"
        ) from error
