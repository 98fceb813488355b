"""Finding images: in local folders, or in a dataset on the hub."""

from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from PIL import Image

from common.arguments import ModelArguments
from common.data import limit, load_hub_dataset, require_columns
from common.exits import ExampleError, UsageError
from image_classification.arguments import FOLDERS, ImageArguments

Source = dict[str, Any]
"""An image that is not read yet: its path, and its bytes where it is not a file of its own."""


def load_images(data: ImageArguments, model: ModelArguments, stage: str) -> tuple[Dataset, str]:
    """Find the images of a stage.

    Returns:
        A dataset with the columns image (a ``Source``) and, for ``eval``, label; and the option
        and its value that named it, for errors.

    Raises:
        UsageError: there is no such folder.
        ExampleError: there are no images in it, or one of them can't be read.
    """
    named = getattr(data, FOLDERS[stage])
    if named is not None:
        asked = f"--{FOLDERS[stage]} {named}"
        images = _from_folder(Path(named).expanduser(), stage == "eval", asked)
        images = limit(images, data, stage)
        for source in images["image"]:  # now, not after hours
            read_image(source, whole=False)
        return images, asked
    asked = f"--dataset_name {data.dataset_name}"
    images = load_hub_dataset(data, model, stage)
    columns = {data.image_column_name: "image"}
    if stage == "eval":
        columns[data.label_column_name] = "label"
    require_columns(images.column_names, columns, asked)
    images = limit(images.select_columns(list(columns)), data, stage)
    images = images.rename_columns({old: new for old, new in columns.items() if old != new})
    return images.cast_column("image", datasets.Image(decode=False)), asked


def read_image(source: Source, *, whole: bool = True) -> Image.Image:
    """Read an image.

    Args:
        source: where it is.
        whole: also decode it; else only see what it says that it is.

    Raises:
        ExampleError: it can't be read.
    """
    try:
        with Image.open(BytesIO(source["bytes"]) if source["bytes"] else source["path"]) as image:
            return image.convert("RGB") if whole else image
    except Exception as error:  # broken files raise whatever their decoder raises
        raise ExampleError(
            f"the image {source['path'] or 'without a file name'} can't be read: "
            f"{getattr(error, 'strerror', None) or 'it is broken, or no image'}. Mend it, or take "
            "it out"
        ) from error


def _from_folder(folder: Path, labelled: bool, asked: str) -> Dataset:
    if not folder.is_dir():
        raise UsageError(f"{asked} was asked for, but there is no such folder")
    known = Image.registered_extensions()
    paths = sorted(
        path
        for path in folder.glob("*/**/*" if labelled else "**/*")
        if path.suffix.lower() in known and path.is_file()
    )
    if not paths:
        where = "a folder of it for each class" if labelled else "it"
        raise ExampleError(f"{asked} was asked for, but there are no images in {where}")
    columns = {"image": [str(path) for path in paths]}
    if labelled:
        columns["label"] = [path.relative_to(folder).parts[0] for path in paths]
    return Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))
