"""Loading the model that the argument MODEL names."""

import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpuaccel.cli.models.source import CONFIG_PREFIX, DEMO, Source, find_source
from cpuaccel.cli.models.zoo import GENERATION, SPEECH, TRANSLATION, ZOO
from cpuaccel.errors import ModelError, did_you_mean, first_line

if TYPE_CHECKING:
    import torch

SEED = 0

TASKS = {
    "question-answering": "AutoModelForQuestionAnswering",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    GENERATION: "AutoModelForCausalLM",
    "image-classification": "AutoModelForImageClassification",
    SPEECH: "AutoModelForCTC",
}
"""The Transformers class that adds the head of each task."""

GENERATING = {
    GENERATION: "AutoModelForCausalLM",
    SPEECH: "AutoModelForSpeechSeq2Seq",
    TRANSLATION: "AutoModelForSeq2SeqLM",
}
"""The class for each task whose outputs are generated."""


def load_model(name: str, task: str | None = None, *, generates: bool = False) -> "torch.nn.Module":
    """Load or make a model in eval mode; random weights are the same in every run.

    ``name`` is ``demo``, ``smollm2``, ``config:NAME``, a local folder or a hub id; ``task`` a key
    of ``TASKS``, by default the head that the model's config names; or, where the model is to
    generate, a key of ``GENERATING``, by default the one for its architecture.
    """
    classes = GENERATING if generates else TASKS
    if task is not None and task not in classes:
        close = did_you_mean(task, classes)
        raise ModelError(f"unknown task {task!r}{close} Known: {', '.join(classes)}")
    if name == DEMO and task is not None:
        raise ModelError(
            f"--task is not supported for demo, an encoder without a head, got {task!r}. Leave it "
            "out"
        )
    if name.startswith(CONFIG_PREFIX):
        return _from_zoo(name.removeprefix(CONFIG_PREFIX), task, classes)
    return _pretrained(name, find_source(name), task, classes)


def is_generating(name: str, task: str | None) -> bool:
    """Whether a model has no other use for a task than ``generate``: it is an encoder-decoder."""
    architecture = ZOO.get(name.removeprefix(CONFIG_PREFIX))
    if name.startswith(CONFIG_PREFIX) and architecture is not None:
        task = task or architecture.task
    if task != SPEECH:
        return task == TRANSLATION
    transformers = import_transformers()
    if architecture is not None:
        config = transformers.AutoConfig.for_model(architecture.model_type)
    else:
        source = find_source(name)
        try:
            config = transformers.AutoConfig.from_pretrained(source.path, **source.arguments)
        except (OSError, ValueError):  # loading the model says so
            return False
    return _generating_task(config) == SPEECH


def _generating_task(config: Any) -> str:
    """The task for which a model of this architecture generates."""
    from transformers.models.auto import modeling_auto

    if config.model_type in modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        return SPEECH
    return TRANSLATION if config.is_encoder_decoder else GENERATION


def import_transformers() -> Any:
    """Import Transformers and silence its progress bars and hints."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(
            f"the commands need transformers, which can't be imported ({error}). Run: pip install "
            '".[transformers]"'
        ) from error
    # Its output would break our progress bars.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return transformers


def _from_zoo(name: str, task: str | None, classes: Mapping[str, str]) -> "torch.nn.Module":
    import torch

    architecture = ZOO.get(name)
    if architecture is None:
        raise ModelError(
            f"unknown model {CONFIG_PREFIX}{name}{did_you_mean(name, ZOO)} Known: {', '.join(ZOO)}"
        )
    transformers = import_transformers()
    config = transformers.AutoConfig.for_model(architecture.model_type, **architecture.config)
    task = task or (_generating_task(config) if classes is GENERATING else architecture.task)
    if task not in classes:
        raise ModelError(f"{CONFIG_PREFIX}{name} only generates. Use cpuaccel bench or tune")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model: torch.nn.Module = getattr(transformers, classes[task]).from_config(config)
    except ValueError as error:
        raise ModelError(
            f"transformers {transformers.__version__} has no {task} for {CONFIG_PREFIX}{name}: "
            f"{first_line(error)}. Choose another task"
        ) from error
    return model.eval()


def _pretrained(
    name: str, source: Source, task: str | None, classes: Mapping[str, str]
) -> "torch.nn.Module":
    import torch

    transformers = import_transformers()
    task = task or source.task
    try:
        if task is not None:
            wanted = classes[task]
        else:
            config = transformers.AutoConfig.from_pretrained(source.path, **source.arguments)
            if classes is GENERATING:
                wanted = GENERATING[_generating_task(config)]
            else:
                wanted = (config.architectures or ["AutoModel"])[0]
        model_class: Any = getattr(transformers, wanted, None)
        is_model = isinstance(model_class, type) and (
            issubclass(model_class, transformers.PreTrainedModel) or wanted.startswith("AutoModel")
        )
        if not is_model:  # a config may name any attribute of transformers
            raise ModelError(
                f"the config of {name} names the class {wanted}, which is not a model of "
                f"transformers {transformers.__version__}. Choose a head with --task"
            )
        model: torch.nn.Module = model_class.from_pretrained(source.path, **source.arguments)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{name} can't be loaded: {first_line(error)}. Pass a local folder, "
            f"{CONFIG_PREFIX}bert-base or {DEMO}; a hub id needs a network"
        ) from error
    return model.eval()
