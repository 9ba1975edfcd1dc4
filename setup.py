"""
The part in C. Without a compiler the installation goes on, and Python does the same, slower.

All else is in setup.cfg, but for the description: README.md, with links that work on PyPI too.
"""

import re
import sysconfig
from configparser import ConfigParser
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path(__file__).parent


def readme() -> str:
    """Return README.md with absolute links, to the repository that setup.cfg names."""
    metadata = ConfigParser()
    metadata.read(FOLDER / "setup.cfg", "utf-8")
    urls = dict(line.split(" = ") for line in metadata["metadata"]["project_urls"].strip().splitlines())
    text = (FOLDER / "README.md").read_text("utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:|#)", rf"\g<1>{urls['Source']}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?![a-z]+:|#)", rf"\g<1>{urls['Source']}/blob/main/", text)


# One build for all releases from 3.11 on; a Python without the GIL has no limited API.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    long_description=readme(),
    ext_modules=[
        Extension(
            "txrealtime._speedups",
            ["txrealtime/_speedups.c"],
            py_limited_api=limited,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
)
