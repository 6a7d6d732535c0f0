"""Tests of cells.py. They run in a sandbox, like any program."""

import unittest

import cells


class CellsTest(unittest.TestCase):
    def test_definitions_have_no_effects(self) -> None:
        found = cells.definitions(
            [
                "import os\nprint('x')\nN = 3\nM = open('f')\n",
                "(",
                "from __future__ import annotations\ndef f():\n    '''a\n  b'''\n    return N\nclass A: pass\n",
                "if True:\n    def g(): pass\n",
                "1 / 0\nbroken = undefined\n",
            ]
        )
        namespace: "dict[str, object]" = {}
        exec(compile(found, "f.py", "exec"), namespace)
        self.assertEqual(namespace["f"](), 3)  # type: ignore[operator]
        self.assertEqual({"os", "N", "f", "A", "M", "g", "broken"} & set(namespace), {"os", "N", "f", "A"})

    def test_the_newest_definition_of_a_class_is_found(self) -> None:
        all_cells = cells.Cells()
        for code in (b"class A: pass", b"class A: x = 1", b"# class A", b"("):
            all_cells.add(code)
        self.assertEqual(all_cells.cell_of(type("A", (), {})), "<cell 2>")
        self.assertEqual(all_cells.cell_of(type("B", (), {})), "")
