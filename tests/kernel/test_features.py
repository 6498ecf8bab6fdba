# SPDX-License-Identifier: BSD-2-Clause
"""The table of what kernels have, held against the running kernel."""

from __future__ import annotations

import features
import pytest


def early_would_be_wrong(name):
    feature = features.FEATURES[name]
    return feature.since is not None and not feature.backported


@pytest.mark.parametrize("name", features.FEATURES)
def test_the_kernel_has_what_the_table_says(name):
    """There exactly if nothing explains that it is not."""
    if features.excuse(features.FEATURES[name]) is None:
        assert features.has(name)
    elif features.GUEST and early_would_be_wrong(name):
        assert not features.has(name), "it is there before its first release"
