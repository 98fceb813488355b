"""Trainer evaluates a tiny classifier with a pipeline, before, during and after training."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")
pytest.importorskip("accelerate", reason="Trainer needs accelerate")

from accelerate.state import AcceleratorState  # noqa: E402

from cpuaccel import CpuaccelError, PipelineError  # noqa: E402
from cpuaccel.integrations.trainer import CpuaccelArguments, CpuaccelTrainer  # noqa: E402
from tests.conftest import Python  # noqa: E402
from tests.models import encoder, generator  # noqa: E402
from tests.required import BF16, IPEX, NATIVE, requires  # noqa: E402

Row = dict[str, torch.Tensor]

needs_ipex = requires(*IPEX)

# From Trainer, in training and evaluation.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*pin_memory.*:UserWarning",
    "ignore:aten..layer_norm. an autograd kernel was not registered:UserWarning",
    "ignore:.torch.cpu.amp.autocast.:FutureWarning",
)


@pytest.fixture(autouse=True)
def _own_accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reset the precision that accelerate keeps from the first Trainer of the process."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def model() -> torch.nn.Module:
    return encoder("bert-text")


@pytest.fixture
def rows() -> list[Row]:
    torch.manual_seed(1)
    return [
        {
            "input_ids": torch.randint(1, 64, (12,)),
            "attention_mask": (torch.arange(12) < 12 - number % 5).long(),
            "labels": torch.tensor(number % 2),
        }
        for number in range(20)
    ]


def parse(folder: Path, *options: str) -> CpuaccelArguments:
    parser = transformers.HfArgumentParser(CpuaccelArguments)
    common = ["--output_dir", str(folder), "--report_to", "none", "--disable_tqdm", "True"]
    (arguments,) = parser.parse_args_into_dataclasses([*common, "--use_cpu", *options])
    assert isinstance(arguments, CpuaccelArguments)
    return arguments


def accuracy(prediction: object) -> dict[str, float]:
    scores, labels = prediction.predictions, prediction.label_ids  # type: ignore[attr-defined]
    return {"accuracy": float(np.mean(scores.argmax(axis=1) == labels))}


def trainer(
    folder: Path, model: torch.nn.Module, rows: list[Row], *options: str
) -> CpuaccelTrainer:
    return CpuaccelTrainer(
        model=model,
        args=parse(folder, "--save_strategy", "no", "--learning_rate", "0.01", *options),
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=accuracy,
    )


def logits(trained: CpuaccelTrainer, rows: list[Row]) -> torch.Tensor:
    return torch.from_numpy(trained.predict(rows).predictions)


def eager_logits(model: torch.nn.Module, rows: list[Row]) -> torch.Tensor:
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "labels"}
    with torch.no_grad():
        output: torch.Tensor = model.eval()(**batch).logits
    return output


@pytest.mark.parametrize(
    ("options", "pipeline", "dtype"),
    [
        ([], "None", None),
        (["--jit_mode_eval"], "jit", None),
        (["--use_ipex"], "ipex", None),
        (["--jit_mode_eval", "--use_ipex"], "ipex,jit", None),
        (["--cpuaccel_backends", "bettertransformer, jit"], "bettertransformer,jit", None),
        (["--jit_mode_eval", "--bf16_full_eval"], "jit", torch.bfloat16),
        (["--jit_mode_eval", "--bf16"], "jit", torch.bfloat16),
    ],
)
def test_options_choose_the_pipeline(
    tmp_path: Path, options: list[str], pipeline: str, dtype: torch.dtype | None
) -> None:
    chosen = parse(tmp_path, *options).inference_pipeline
    assert str(chosen) == pipeline
    assert chosen is None or chosen.dtype is dtype


def test_a_file_chooses_the_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text('version = 1\ndtype = "bfloat16"\n[[steps]]\nbackend = "jit"\n')
    chosen = parse(tmp_path, "--cpuaccel_pipeline", str(file)).inference_pipeline
    assert str(chosen) == "jit"
    assert chosen is not None
    assert chosen.dtype is torch.bfloat16


def test_two_options_that_choose_a_pipeline(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as raised:
        parse(tmp_path, "--jit_mode_eval", "--cpuaccel_backends", "jit")
    assert str(raised.value) == (
        "--jit_mode_eval and --cpuaccel_backends: 1 mistake\n"
        "  - only one of them can choose the pipeline: keep --cpuaccel_backends"
    )


def test_an_unknown_backend_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"unknown backend 'jitt'\. Did you mean"):
        parse(tmp_path, "--cpuaccel_backends", "jitt")


def test_no_cuda_is_accepted(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments = CpuaccelArguments(output_dir=str(tmp_path), no_cuda=True, report_to=[])
    assert arguments.use_cpu
    assert arguments.device == torch.device("cpu")


def test_evaluation_uses_the_pipeline_and_reports_metrics(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row]
) -> None:
    eager = trainer(tmp_path, model, rows).evaluate()
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval")
    found = fast.evaluate()
    assert found["eval_accuracy"] == eager["eval_accuracy"]
    assert found["eval_loss"] == pytest.approx(eager["eval_loss"], abs=1e-6)
    assert found["eval_cpuaccel_jit_applied"] == 1
    assert found["eval_cpuaccel_calls_optimized"] == 3
    assert found["eval_cpuaccel_calls_original"] == 0
    assert found["eval_jit_compilation_time"] > 0
    assert not any("cpuaccel" in name for name in eager)


def test_building_is_not_part_of_the_runtime(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval")
    clock = 0.0
    for module in (transformers.trainer, transformers.trainer_utils):
        monkeypatch.setattr(module.time, "time", lambda: clock)
    built = fast.evaluate()
    # The clock stands still, so the runtime is what was subtracted from it.
    assert built["eval_runtime"] == pytest.approx(-built["eval_jit_compilation_time"], abs=1e-3)


def test_the_pipeline_is_built_once(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row]
) -> None:
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval")
    fast.evaluate()
    built = fast.optimized
    metrics = fast.predict(rows).metrics
    assert fast.optimized is built
    assert metrics["test_jit_compilation_time"] == 0
    assert metrics["test_cpuaccel_calls_optimized"] == 3


def test_evaluation_during_training(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row]
) -> None:
    options = ("--jit_mode_eval", "--eval_strategy", "epoch", "--num_train_epochs", "2")
    fast = trainer(tmp_path, model, rows, *options)
    before = fast.evaluate()
    fast.train()
    evaluations = [
        entry for entry in fast.state.log_history if "eval_cpuaccel_jit_applied" in entry
    ]
    assert len(evaluations) == 2  # train() resets the history
    assert all(entry["eval_jit_compilation_time"] > 0 for entry in evaluations)
    assert evaluations[-1]["eval_loss"] != before["eval_loss"]
    found = logits(fast, rows)
    torch.testing.assert_close(found, eager_logits(model, rows), atol=1e-5, rtol=1e-4)


def test_a_training_step_drops_the_optimized_model(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row]
) -> None:
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval", "--max_steps", "1")
    fast.evaluate()
    fast.train()
    assert fast.optimized is None


def test_weights_changed_in_place_are_noticed(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row]
) -> None:
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval")
    fast.evaluate()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    found = logits(fast, rows)
    torch.testing.assert_close(found, eager_logits(model, rows), atol=1e-5, rtol=1e-4)


@requires(BF16)
@pytest.mark.parametrize("option", ["--bf16", "--bf16_full_eval"])
def test_bfloat16_options(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row], option: str
) -> None:
    expected = eager_logits(model, rows)
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval", option)
    found = logits(fast, rows)
    assert fast.optimized is not None
    assert fast.optimized.report.dtype == "bfloat16"
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)
    assert not torch.equal(found.float(), expected)
    again = fast.evaluate()
    assert again["eval_cpuaccel_jit_applied"] == 1
    # Built again for inputs with labels, not because the weights were cast again.
    assert again["eval_cpuaccel_calls_optimized"] == 3
    assert fast.evaluate()["eval_jit_compilation_time"] == 0


@requires("no intel-extension-for-pytorch")
def test_metrics_of_a_skipped_step(
    tmp_path: Path,
    model: torch.nn.Module,
    rows: list[Row],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval", "--use_ipex")
    found = fast.evaluate()
    assert found["eval_cpuaccel_ipex_applied"] == 0
    assert found["eval_cpuaccel_jit_applied"] == 1
    (warning,) = [r.message for r in caplog.records if r.name == "cpuaccel"]
    assert warning.startswith("ipex: skipped. intel-extension-for-pytorch is not installed")


@needs_ipex
def test_ipex_and_jit_are_both_applied(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row]
) -> None:
    eager = trainer(tmp_path, model, rows).evaluate()
    found = trainer(tmp_path, model, rows, "--use_ipex", "--jit_mode_eval").evaluate()
    assert found["eval_cpuaccel_ipex_applied"] == 1
    assert found["eval_cpuaccel_jit_applied"] == 1
    assert found["eval_cpuaccel_calls_original"] == 0
    assert found["eval_accuracy"] == eager["eval_accuracy"]
    assert found["eval_loss"] == pytest.approx(eager["eval_loss"], abs=1e-6)


@needs_ipex
def test_evaluation_after_training_with_ipex(
    tmp_path: Path, model: torch.nn.Module, rows: list[Row]
) -> None:
    options = ("--use_ipex", "--jit_mode_eval", "--num_train_epochs", "1")
    fast = trainer(tmp_path, model, rows, *options)
    fast.train()
    found = logits(fast, rows)
    torch.testing.assert_close(found, eager_logits(model, rows), atol=1e-5, rtol=1e-4)


def test_another_device_is_refused(
    tmp_path: Path,
    model: torch.nn.Module,
    rows: list[Row],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast = trainer(tmp_path, model, rows, "--jit_mode_eval")
    monkeypatch.setattr(CpuaccelArguments, "device", torch.device("cuda", 0))
    with pytest.raises(CpuaccelError) as raised:
        fast._wrap_model(model, training=False)
    assert str(raised.value) == (
        "jit runs on the CPU only, but Trainer runs on cuda:0. Pass --use_cpu"
    )


def test_the_classes_are_mixins(tmp_path: Path) -> None:
    class Arguments(CpuaccelArguments, transformers.Seq2SeqTrainingArguments):
        pass

    class MyTrainer(CpuaccelTrainer, transformers.Seq2SeqTrainer):
        pass

    model = generator("t5", use_cache=False).eval()
    torch.manual_seed(0)
    rows = [
        {"input_ids": torch.randint(1, 64, (9,)), "labels": torch.randint(1, 64, (5,))}
        for _ in range(10)
    ]
    arguments = Arguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], jit_mode_eval=True)
    found = MyTrainer(model=model, args=arguments, eval_dataset=rows).evaluate()
    arguments = Arguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    eager = MyTrainer(model=model, args=arguments, eval_dataset=rows).evaluate()
    assert found["eval_loss"] == pytest.approx(eager["eval_loss"], abs=1e-5)
    assert found["eval_cpuaccel_calls_optimized"] + found["eval_cpuaccel_calls_original"] == 2


class Generating(CpuaccelTrainer, transformers.Seq2SeqTrainer):
    pass


@pytest.fixture
def translator() -> Any:
    model = generator("t5", initializer_range=0.5, decoder_start_token_id=0).eval()
    model.generation_config.update(max_new_tokens=6, no_repeat_ngram_size=2)
    return model


@pytest.fixture
def texts() -> list[Row]:
    torch.manual_seed(0)
    return [{"input_ids": torch.randint(2, 64, (9,))} for _ in range(10)]


def generating(folder: Path, model: Any, **options: Any) -> Generating:
    @dataclass
    class Arguments(CpuaccelArguments, transformers.Seq2SeqTrainingArguments):
        pass

    arguments = Arguments(
        output_dir=str(folder), use_cpu=True, report_to=[], predict_with_generate=True, **options
    )
    return Generating(model=model, args=arguments)


@requires(*NATIVE)
def test_seq2seq_trainer_generates_with_the_pipeline(
    tmp_path: Path, translator: Any, texts: list[Row]
) -> None:
    expected = generating(tmp_path, translator).predict(texts, num_beams=2)
    fast = generating(tmp_path, translator, cpuaccel_backends="onednn")
    found = fast.predict(texts, num_beams=2)
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    assert len(np.unique(found.predictions)) > 3
    assert found.metrics["test_cpuaccel_onednn_applied"] == 1
    assert found.metrics["test_cpuaccel_calls_optimized"] == 2
    assert found.metrics["test_cpuaccel_calls_original"] == 0
    assert fast.optimized is not None
    generation: Any = fast.optimized.report.generation
    encoder = sum(variant.seconds for variant in generation.encoder.variants)
    built = generation.outcome.seconds + encoder
    assert found.metrics["test_jit_compilation_time"] == pytest.approx(built, abs=1e-3)
    assert fast.model is translator
    again = fast.predict(texts, num_beams=2)
    assert again.metrics["test_jit_compilation_time"] == 0
    assert again.metrics["test_cpuaccel_calls_optimized"] == 2


def test_seq2seq_trainer_with_a_pipeline_that_does_not_generate(
    tmp_path: Path, translator: Any, texts: list[Row]
) -> None:
    expected = generating(tmp_path, translator).predict(texts)
    found = generating(tmp_path, translator, jit_mode_eval=True).predict(texts)
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    assert found.metrics["test_cpuaccel_jit_applied"] == 0
    assert found.metrics["test_cpuaccel_calls_original"] == 2


def test_plugins_that_a_pipeline_file_blocks_are_not_imported(
    python: Python, tmp_path: Path
) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text('version = 1\ndisable_plugins = ["ipex"]\n[[steps]]\nbackend = "jit"\n')
    done = python(
        """
import sys, cpuaccel
from cpuaccel.integrations.trainer import CpuaccelArguments
made = CpuaccelArguments(output_dir=sys.argv[1], cpuaccel_pipeline=sys.argv[2], no_cuda=True)
print(made.inference_pipeline.disable_plugins, [b.by for b in cpuaccel.plugin_host().blocked])
print("cpuaccel_plugins.ipex" in sys.modules)
""",
        str(tmp_path),
        str(path),
    )
    assert done.stdout.splitlines()[-2:] == [f"('ipex',) {[str(path)]}", "False"]
