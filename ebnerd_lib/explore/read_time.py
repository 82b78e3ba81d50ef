"""How long readers read what their histories hold, straight from a bundle's files.

Datasets leave read times out: no feature may know them. A person who looks at one reader may.
"""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from ebnerd_lib.data.bundle import microseconds, open_parquet
from ebnerd_lib.data.layout import SPLITS, check_files
from ebnerd_lib.data.schema import HISTORY, cast_column, check_schema, flat
from ebnerd_lib.errors import BundleError


class ReadTimes:
    """Read times by user. What is held is who stands in which row; a row group is read when it is asked for.

    Args:
        bundle: folder of the bundle.

    Raises:
        BundleError: a file is missing, or of another form.
    """

    def __init__(self, bundle: Path) -> None:
        check_files(bundle)
        self._files = [bundle / split / "history.parquet" for split in SPLITS]
        self._users, self._ends = [], []
        for file in self._files:
            opened = open_parquet(file)
            check_schema(file, opened.schema_arrow, HISTORY)
            groups = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            self._users.append(opened.read(columns=["user_id"])["user_id"].to_numpy())
            self._ends.append(np.cumsum(groups))

    def of(self, user_id: int, week: int, clicks: int) -> np.ndarray:
        """Return the seconds of each click of a user's history, in the order of ``Dataset.histories[week]``.

        Args:
            user_id: as in the file.
            week: 0 for the train file, 1 for the validation file.
            clicks: how many the dataset knows.

        Returns:
            float32 (clicks,), NaN where unknown.

        Raises:
            BundleError: the file holds values that no history may, or is not the one that the dataset was made of.
        """
        seconds = self._of(user_id, week)
        if len(seconds) != clicks:
            raise BundleError(
                f"{self._files[week]}: user {user_id} has {len(seconds)} clicks, and {clicks} in the dataset. "
                "Name the bundle that 01_preprocess read with the parameter `bundle`."
            )
        return seconds

    def _of(self, user_id: int, week: int) -> np.ndarray:
        found = np.flatnonzero(self._users[week] == user_id)
        if not len(found):
            return np.zeros(0, np.float32)
        group = int(np.searchsorted(self._ends[week], found[0], side="right"))
        first = int(self._ends[week][group - 1]) if group else 0
        file = self._files[week]
        names = ["impression_time_fixed", "read_time_fixed"]
        row = open_parquet(file).read_row_group(group, columns=names).slice(int(found[0]) - first, 1).combine_chunks()
        times, read = (cast_column(file, name, row[name], HISTORY[name]) for name in names)
        time, seconds = microseconds(flat(times)), pc.fill_null(flat(read), np.nan).to_numpy(zero_copy_only=False)
        if len(seconds) != len(time):  # nobody knows which is whose
            return np.full(len(time), np.nan, np.float32)
        return seconds[np.argsort(time, kind="stable")].astype(np.float32)
