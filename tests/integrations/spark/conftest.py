"""A real Spark cluster on this machine: a master and two workers in processes of their own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.http.conftest import folders as folders

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def session() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        session = _start(SparkSession.builder)
        yield session
        session.stop()


def _start(builder: Any) -> Any:
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    session = (
        builder.master("local-cluster[2,1,1024]")
        .config("spark.executorEnv.PYTHONPATH", path)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    return session
