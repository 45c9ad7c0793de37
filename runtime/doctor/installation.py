"""What is installed here: Python, its packages in the order they are found, and the native libraries next to them."""

from __future__ import annotations

import mmap
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NORMAL = re.compile(r"[-_.]+")
_OWN = "opt/overflight/venv"
_LIBRARIES = (
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu/nvidia",
    "usr/local/cuda/lib64",
    "usr/local/lib",
)


@dataclass(frozen=True)
class Package:
    """One installed distribution: its normal name, its version, the directory it lies in."""

    name: str
    version: str
    site: Path


@dataclass(frozen=True)
class Installation:
    """A Python as it stands: of this process, or of a file system that is only looked at (``live`` is False).

    ``sites`` are its package directories in the order in which imports search them.
    """

    root: Path
    python: tuple[int, int]
    sites: tuple[Path, ...]
    live: bool

    @classmethod
    def here(cls) -> Installation:
        """Describe the Python that runs this."""
        sites = tuple(Path(place) for place in dict.fromkeys(sys.path) if place and Path(place).is_dir())
        return cls(Path("/"), sys.version_info[:2], sites, live=True)

    @classmethod
    def below(cls, root: Path) -> Installation:
        """Describe the Python of a file system under ``root``: Overflight's own environment first, then Debian's."""
        link = next(iter(sorted((root / "usr/bin").glob("python3.[0-9]*"))), None)
        found = re.search(r"python3\.(\d+)$", link.name if link else "")
        minor = int(found[1]) if found else sys.version_info[1]
        places = (
            root / _OWN / f"lib/python3.{minor}/site-packages",
            *sorted(root.glob(f"home/*/.local/lib/python3.{minor}/site-packages")),
            root / f"usr/local/lib/python3.{minor}/dist-packages",
            root / "usr/lib/python3/dist-packages",
            root / f"usr/lib/python3.{minor}/dist-packages",
        )
        return cls(root, (3, minor), tuple(place for place in places if place.is_dir()), live=False)

    @cached_property
    def packages(self) -> dict[str, Package]:
        """The distributions that an import would find, by normal name; the first site wins."""
        found: dict[str, Package] = {}
        for site in self.sites:
            for distribution in metadata.distributions(path=[str(site)]):
                name = _NORMAL.sub("-", distribution.metadata["Name"] or "").lower()
                if name:
                    found.setdefault(name, Package(name, distribution.version, site))
        return found

    def version(self, name: str) -> str | None:
        """Return the version of a distribution, None where it is not installed."""
        package = self.packages.get(name)
        return package.version if package else None

    def pip(self, name: str = "") -> str:
        """Return the command of the pip that manages a package; a virtual environment's changes nothing outside."""
        own = Path(sys.prefix) if self.live else self.root / _OWN
        package = self.packages.get(name)
        if package is not None and not package.site.is_relative_to(own):
            return f"python{self.python[0]}.{self.python[1]} -m pip"
        return f"{sys.executable if self.live else f'/{_OWN}/bin/python'} -m pip"

    def modules(self, name: str) -> list[Path]:
        """Find every copy of an importable package, the one that an import takes first.

        A copy is a directory, or one extension module: Ubuntu's OpenCV is ``cv2.cpython-310-aarch64-linux-gnu.so``.
        """
        copies = (
            [site / name] if (site / name).is_dir() else sorted(site.glob(f"{name}.*so"))[:1] for site in self.sites
        )
        return [copy for one in copies for copy in one]

    def libraries(self, pattern: str) -> list[Path]:
        """Find native libraries by file name, in the system's directories and in the packages that bring some."""
        places = [self.root / place for place in _LIBRARIES]
        places += [place for site in self.sites for place in (*site.glob("nvidia/*/lib"), site / "tensorrt_libs")]
        return [path for place in places if place.is_dir() for path in sorted(place.glob(pattern))]


def search(library: Path, pattern: bytes) -> re.Match[bytes] | None:
    """Search a native library's bytes, without loading it; None where it holds no match or cannot be read."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            found = re.search(pattern, view)
            return re.search(pattern, found[0]) if found else None
    except (OSError, ValueError):
        return None


def needs_numpy_1(library: Path) -> bool:
    """Whether an extension was compiled against NumPy 1 headers and so cannot be imported under NumPy 2.

    ``import_array`` of NumPy 2 headers tries numpy._core first; that of NumPy 1 headers knows only numpy.core.
    """
    return search(library, rb"numpy\.core\.") is not None and search(library, rb"numpy\._core\._multiarray") is None


def extensions(installation: Installation, package: str, pattern: str) -> Iterator[Path]:
    """Find the extension modules of the copy of a package that an import would take."""
    for place in installation.modules(package)[:1]:
        yield from [place] if place.is_file() else sorted(place.rglob(pattern))
