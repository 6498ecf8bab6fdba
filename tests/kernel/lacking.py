# SPDX-License-Identifier: BSD-2-Clause
"""Kernels that lack what a test attaches."""

from __future__ import annotations

from contextlib import contextmanager

import features
import pybpf


@contextmanager
def skipped_without(feature):
    """Skips the test where attaching says that this kernel lacks ``feature``, in these words."""
    try:
        yield
    except pybpf.NotSupportedError as error:
        if feature not in error.hint:
            raise
        features.skip_as_told(error)
