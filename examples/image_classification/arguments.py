"""The options of image classification."""

from dataclasses import dataclass, field

from common.arguments import DataArguments

FOLDERS = {"eval": "validation_dir", "predict": "test_dir"}
"""The option that names the local folder of each stage."""


@dataclass
class ImageArguments(DataArguments):
    """Data."""

    # Not options here: images are in folders, and are prepared in batches.
    preprocessing_num_workers: int | None = field(default=None, init=False)
    validation_file: str | None = field(default=None, init=False)
    test_file: str | None = field(default=None, init=False)
    validation_dir: str | None = field(
        default=None,
        metadata={
            "help": "A local folder to evaluate on with --do_eval. It has a folder of images for "
            "each class, with the name of the class."
        },
    )
    test_dir: str | None = field(
        default=None,
        metadata={"help": "A local folder of images to predict with --do_predict."},
    )
    image_column_name: str = field(
        default="image", metadata={"help": "The column of a dataset with the images."}
    )
    label_column_name: str = field(
        default="label", metadata={"help": "The column of a dataset with the labels."}
    )
