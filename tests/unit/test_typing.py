# SPDX-License-Identifier: BSD-2-Clause
"""What type checkers see: mypy agrees with every assert_type in tests/typing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TYPING = Path(__file__).parents[1] / "typing"


@pytest.mark.parametrize("file", sorted(TYPING.glob("*.py")), ids=lambda path: path.stem)
def test_mypy_agrees(file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(file)]
    found = subprocess.run(
        [*command, f"--cache-dir={tmp_path}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert found.returncode == 0, found.stdout + found.stderr
