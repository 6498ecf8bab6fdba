# SPDX-License-Identifier: BSD-2-Clause
"""The table of what kernels have, held against the running kernel."""

from __future__ import annotations

import features
import pytest


@pytest.mark.parametrize("name", features.FEATURES)
def test_the_kernel_has_what_the_table_says(name):
    """There exactly if nothing explains that it is not."""
    if features.excuse(name) is None:
        assert features.has(name)
    elif features.FEATURES[name].since and features.GUEST:
        assert not features.has(name), "it is there before its first release"
