"""run_image_classification.py with small models, each run in its own process."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")
datasets = pytest.importorskip("datasets")

from PIL import Image  # noqa: E402

from tests.examples.conftest import Example  # noqa: E402
from tests.examples.data import read_tsv  # noqa: E402
from tests.examples.models import balance, distinct_model  # noqa: E402
from tests.examples.results import results  # noqa: E402

SCRIPT = "image_classification/run_image_classification.py"
NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]
COUNT = 24


class Trained(NamedTuple):
    """A saved model, and its logits for each image: float32[images, classes]."""

    folder: Path
    says: np.ndarray[Any, Any]

    @property
    def ranked(self) -> np.ndarray[Any, Any]:
        """The classes of each image, best first."""
        return np.argsort(-self.says, axis=1)

    @property
    def known(self) -> list[int]:
        """The labels: the best class, the third or the last, in turn."""
        return [int(order[(0, 2, -1)[row % 3]]) for row, order in enumerate(self.ranked)]


def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = [(16, 16), (20, 31), (40, 16)]
    return [
        Image.fromarray(random.integers(0, 255, (*shapes[row % 3], 3), dtype=np.uint8))
        for row in range(COUNT)
    ]


def save(folder: Path, classes: int) -> Trained:
    model = distinct_model("vit", NAMES[:classes], num_labels=classes)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    with torch.no_grad():
        says = model(**processor(images(), return_tensors="pt")).logits.numpy()
    says = balance(model.classifier, says)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Trained(folder, says)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return save(tmp_path_factory.mktemp("vit"), len(NAMES))


@pytest.fixture(scope="module")
def folders(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of images for each class, with a file that is not an image."""
    folder = tmp_path_factory.mktemp("images")
    for row, (image, number) in enumerate(zip(images(), trained.known)):
        of_class = folder / NAMES[number]
        of_class.mkdir(exist_ok=True)
        image.save(of_class / f"{row:02}.{('png', 'BMP')[row % 2]}")
    (folder / "ant" / "notes.txt").write_text("not an image")
    return folder


@pytest.mark.parametrize(
    ("options", "applied"),
    [
        ([], []),
        (["--jit_mode_eval", "--compare_with_eager"], ["jit"]),
        (
            ["--cpuaccel_backends", "bettertransformer,jit", "--compare_with_eager"],
            ["bettertransformer", "jit"],
        ),
    ],
    ids=["eager", "jit", "bettertransformer,jit"],
)
def test_folders(
    example: Example,
    trained: Trained,
    folders: Path,
    tmp_path: Path,
    options: list[str],
    applied: list[str],
) -> None:
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_dir", folders, "--do_predict", "--test_dir", folders),
        *("--per_device_eval_batch_size", 5, *options),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    for prefix in ("", "eager_") if applied else ("",):
        assert found[f"{prefix}accuracy"] == pytest.approx(1 / 3, abs=1e-6)
        assert found[f"{prefix}accuracy_top5"] == pytest.approx(2 / 3, abs=1e-6)
    assert [found[f"cpuaccel_{backend}_applied"] for backend in applied] == [1] * len(applied)
    predicted = read_tsv(tmp_path / "out" / "predictions.tsv")
    assert dict(zip((Path(path).stem for path in predicted["image"]), predicted["prediction"])) == {
        f"{row:02}": NAMES[order[0]] for row, order in enumerate(trained.ranked)
    }


def test_a_dataset_with_other_column_names_and_few_classes(
    example: Example, tmp_path: Path
) -> None:
    trained = save(tmp_path / "model", 3)
    names = NAMES[:3][::-1]  # in another order than those of the model
    features = datasets.Features(
        {"img": datasets.Image(), "kind": datasets.ClassLabel(names=names)}
    )
    labels = [2 - number for number in trained.known]
    made = datasets.Dataset.from_dict({"img": images(), "kind": labels}, features=features)
    datasets.DatasetDict(validation=made).save_to_disk(tmp_path / "data")
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--dataset_name", tmp_path / "data"),
        *("--image_column_name", "img", "--label_column_name", "kind"),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert found["accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert "accuracy_top5" not in found


def test_a_truncated_image_stops_the_run_and_once_repaired_restarts_it(
    example: Example, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for row, image in enumerate(images()):
        image.save(folder / f"{row:02}.bmp")
    whole = (folder / "23.bmp").read_bytes()
    (folder / "23.bmp").write_bytes(whole[:-200])
    command = (
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_predict", "--test_dir", folder, "--per_device_eval_batch_size", 1),
    )
    stopped = example(*command)
    assert (stopped.code, stopped.out) == (1, "")
    assert stopped.err.splitlines()[-1] == (
        f"error: the image {folder / '23.bmp'} can't be read: it is corrupt or not an image. "
        "Repair or remove it"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predict_partial"]
    again = example(*command)
    assert again.code == 1
    assert "continuing after 20 of 24 finished images" in again.err
    (folder / "23.bmp").write_bytes(whole)
    repaired = example(*command)
    assert repaired.code == 0, repaired.err
    assert "starting over" in repaired.err
    predicted = read_tsv(tmp_path / "out" / "predictions.tsv")["prediction"]
    assert predicted == [NAMES[order[0]] for order in trained.ranked]


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        (None, 2, "--validation_dir {folder}: no such folder"),
        ({}, 1, "--validation_dir {folder}: no images in the class folders"),
        ({"top.png": b""}, 1, "--validation_dir {folder}: no images"),
        ({"ant/a.png": b""}, 1, "the image {folder}/ant/a.png can't be read: it is corrupt or"),
        ({"ant/a.png": b"no image"}, 1, "the image {folder}/ant/a.png can't be read: it is"),
        (
            {"ante/a.png": None},
            1,
            "--validation_dir {folder}: the model has no class for the label ante of row 1. Did "
            "you mean 'ant'?",
        ),
    ],
)
def test_invalid_folders(
    example: Example,
    trained: Trained,
    tmp_path: Path,
    files: dict[str, bytes | None] | None,
    code: int,
    message: str,
) -> None:
    folder = tmp_path / "images"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            if content is None:
                images()[0].save(folder / name)
            else:
                (folder / name).write_bytes(content)
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_dir", folder),
    )
    done.assert_error(f"error: {message.format(folder=folder)}", code)
    assert not list((tmp_path / "out").iterdir())
