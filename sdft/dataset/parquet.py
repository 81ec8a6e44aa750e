"""Rows of a Parquet file. pyarrow is brought only where there is one."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from sdft.errors import DataError, EnvironmentFault


def pyarrow_or_fault() -> Any:
    """Return pyarrow with its Parquet part.

    Raises: EnvironmentFault where it is not installed.
    """
    try:
        pyarrow = import_module("pyarrow")
        import_module("pyarrow.parquet")
    except ImportError as error:
        raise EnvironmentFault(
            what=".parquet files need pyarrow, which is not installed",
            fix='python -m pip install "sdft-trainer[parquet]", or use .json or .jsonl',
        ) from error
    return pyarrow


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return every row as a dict.

    Raises: DataError where it is no Parquet file; EnvironmentFault without pyarrow; OSError where
        it cannot be read.
    """
    pyarrow = pyarrow_or_fault()
    content = path.read_bytes()
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(BytesIO(content)).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(what=f"not a Parquet file: {error}", where=str(path)) from error
    return rows
