"""The options that only image classification has."""

from dataclasses import dataclass, field

from common.arguments import DataArguments

FOLDERS = {"eval": "validation_dir", "predict": "test_dir"}
"""The option for the local folder of each stage."""


@dataclass
class ImageArguments(DataArguments):
    """Which images, and where in them labels are."""

    # Not options here: images come in folders, and are prepared batch by batch.
    preprocessing_num_workers: int | None = field(default=None, init=False)
    validation_file: str | None = field(default=None, init=False)
    test_file: str | None = field(default=None, init=False)
    validation_dir: str | None = field(
        default=None,
        metadata={
            "help": "A local folder to evaluate on with --do_eval, with a folder of images for "
            "each class, named like it."
        },
    )
    test_dir: str | None = field(
        default=None,
        metadata={"help": "A local folder of images to predict with --do_predict."},
    )
    image_column_name: str = field(
        default="image", metadata={"help": "The column of a dataset that holds the images."}
    )
    label_column_name: str = field(
        default="label", metadata={"help": "The column of a dataset that holds the labels."}
    )
