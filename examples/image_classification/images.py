"""Images in local folders, or in a dataset on the hub."""

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
"""An image that is not read yet: its path, and its bytes if it is not a file."""


def load_images(data: ImageArguments, model: ModelArguments, stage: str) -> tuple[Dataset, str]:
    """Find the images of a stage.

    Returns:
        A dataset with the columns image (a ``Source``) and, for ``eval``, label; and the option
        with its value that names the data, for errors.

    Raises:
        UsageError: the folder does not exist.
        ExampleError: it has no images, or an image can't be read.
    """
    named = getattr(data, FOLDERS[stage])
    if named is not None:
        origin = f"--{FOLDERS[stage]} {named}"
        images = _from_folder(Path(named).expanduser(), stage == "eval", origin)
        images = limit(images, data, stage)
        for source in images["image"]:  # before a long run
            read_image(source, whole=False)
        return images, origin
    origin = f"--dataset_name {data.dataset_name}"
    images = load_hub_dataset(data, model, stage)
    columns = {data.image_column_name: "image"}
    if stage == "eval":
        columns[data.label_column_name] = "label"
    require_columns(images.column_names, columns, origin)
    images = limit(images.select_columns(list(columns)), data, stage)
    images = images.rename_columns({old: new for old, new in columns.items() if old != new})
    return images.cast_column("image", datasets.Image(decode=False)), origin


def read_image(source: Source, *, whole: bool = True) -> Image.Image:
    """Read an image.

    Args:
        source: the image.
        whole: decode it; otherwise only read its header.

    Raises:
        ExampleError: it can't be read.
    """
    try:
        with Image.open(BytesIO(source["bytes"]) if source["bytes"] else source["path"]) as image:
            return image.convert("RGB") if whole else image
    except Exception as error:  # corrupt files raise errors of any decoder
        raise ExampleError(
            f"the image {source['path'] or 'without a file name'} can't be read: "
            f"{getattr(error, 'strerror', None) or 'it is corrupt or not an image'}. Repair or "
            "remove it"
        ) from error


def _from_folder(folder: Path, labelled: bool, origin: str) -> Dataset:
    if not folder.is_dir():
        raise UsageError(f"{origin}: no such folder")
    known = Image.registered_extensions()
    paths = sorted(
        path
        for path in folder.glob("*/**/*" if labelled else "**/*")
        if path.suffix.lower() in known and path.is_file()
    )
    if not paths:
        where = "class folders" if labelled else "folder"
        raise ExampleError(f"{origin}: no images in the {where}")
    columns = {"image": [str(path) for path in paths]}
    if labelled:
        columns["label"] = [path.relative_to(folder).parts[0] for path in paths]
    return Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))
