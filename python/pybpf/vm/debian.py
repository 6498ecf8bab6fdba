# SPDX-License-Identifier: BSD-2-Clause
"""Debian's packages by apt's own client, apart from the machine's sources, lists and packages."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pybpf.errors import GuestError
from pybpf.vm import tools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CONFIGURATION = """\
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::DEP-11 {{ DefaultEnabled "false"; }};
"""


class Packages:
    """The packages of some suites for one architecture; ``folder`` is apt's for its own files.

    Making one reads the suites' lists from the network. GuestError where there is no apt, no Debian
    archive in its configuration, or no answer.
    """

    def __init__(self, folder: Path, suites: Iterable[str], architecture: str) -> None:
        self._folder = folder
        for part in ("lists/partial", "cache/archives/partial", "state"):
            (folder / part).mkdir(parents=True)
        sources = "".join(_source(suite) for suite in suites)
        (folder / "sources.list").write_text(sources)
        (folder / "status").touch()
        configuration = folder / "apt.conf"
        configuration.write_text(_CONFIGURATION.format(folder=folder, architecture=architecture))
        self._environment = dict(os.environ, APT_CONFIG=str(configuration), LC_ALL="C")
        self._run("apt-get", "-qq", "update")

    def needed_by(self, package: str) -> list[str]:
        """The names of all packages that ``package`` depends on, however indirectly."""
        without = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        options = [f"--no-{relation}" for relation in without]
        text = self._run("apt-cache", "depends", "--recurse", *options, package)
        return sorted(set(re.findall(r"^(\w\S*)$", text, re.MULTILINE)))

    def download(self, packages: Iterable[str], to: Path) -> None:
        """Put the files of exactly these packages into the folder ``to``."""
        self._run("apt-get", "-qq", "download", *packages, cwd=to)

    def download_all(self, packages: Iterable[str]) -> list[Path]:
        """The files of these packages and of all that they need, below ``folder``."""
        self._run("apt-get", "-qq", "-y", "--download-only", "install", *packages)
        return sorted(self._folder.glob("cache/archives/*.deb"))

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        return tools.run(tool, *arguments, environment=self._environment, cwd=cwd).decode()


def unpack(packages: Iterable[Path], root: Path) -> None:
    """The packages' files below ``root``; none of their scripts is run."""
    for package in packages:
        tools.run("dpkg-deb", "-x", package, root)


def _source(suite: str) -> str:
    if not KEYRING.exists():
        raise GuestError(
            f"{KEYRING} is missing, by which packages are verified",
            hint="apt-get install --no-install-recommends debian-archive-keyring",
        )
    label = "Debian-Security" if suite.endswith("-security") else "Debian"
    return f"deb [signed-by={KEYRING}] {_archive(label)} {suite} main\n"


def _archive(label: str) -> str:
    """The address of the archive ``label`` in the configuration of this machine's apt."""
    text = tools.run("apt-get", "indextargets", "--format", "$(LABEL)\t$(REPO_URI)").decode()
    targets = [line.split("\t") for line in text.splitlines()]
    # there is no label before the first `apt-get update`, but most addresses end like it
    for known, address in targets:
        if known == label or address.rstrip("/").endswith(f"/{label.lower()}"):
            return address
    raise GuestError(
        f"the configuration of this machine's apt names no archive {label}",
        hint="add one to /etc/apt/sources.list.d; kernels come from where packages come from",
    )
