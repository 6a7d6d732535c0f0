"""Tests of forecast.py. They run in a sandbox, like any program."""

import unittest

import forecast


class ForecastTest(unittest.TestCase):
    def test_programs(self) -> None:
        known = forecast.Forecast(["numpy", "matplotlib.pyplot"])
        for expected, code in (
            (False, b"print(6*7)"),
            (False, b""),
            (False, b"import os, sys as system; x = 1\nfrom collections.abc import Iterable"),
            (False, b"from __future__ import annotations\nimport os.path as numbers"),
            (False, b"from IPython.display import display, HTML"),
            (False, b"from . import x"),
            (False, b"import"),
            (False, b"import "),
            (True, b"import numpy"),
            (True, b"__import__('numpy')"),
            (True, b"try: import seaborn\nexcept ImportError: pass"),
            (True, b"if x:\n    from scipy.stats import norm"),
            (True, b"import os, pandas"),
            (True, b"import helper"),
            (True, b"import os\n" * 99 + b"import scipy"),
        ):
            self.assertEqual(known.uses_preloaded(code), expected, code)

    def test_without_preloaded_modules(self) -> None:
        self.assertFalse(forecast.Forecast([]).uses_preloaded(b"import numpy"))

    def test_the_search_is_bounded(self) -> None:
        found = forecast.imported(b"import " * 100_000 + b",x" * 100_000)
        self.assertLessEqual(len(found), forecast.MAX_IMPORTS)


if __name__ == "__main__":
    unittest.main()
