"""
The part in C. Without a compiler the installation goes on, and Python does the same, slower.

All else is in setup.cfg.
"""

import sysconfig

from setuptools import Extension, setup

# One build for all releases from 3.11 on; a Python without the GIL has no limited API.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "txrealtime._speedups",
            ["txrealtime/_speedups.c"],
            depends=["txrealtime/_counters.h"],
            py_limited_api=limited,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
)
