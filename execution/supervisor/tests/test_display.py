"""Tests of display.py. They run in a sandbox, like any program."""

import os
import tempfile
import unittest

import display


class DisplayTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.screen = display.Display()
        self.screen.workspace = folder.name

    def files(self) -> "list[str]":
        return sorted(os.listdir(self.screen.workspace))

    def test_files_are_numbered_and_not_overwritten(self) -> None:
        for name in ("figure-1.png", "figure-3.png"):
            with open(f"{self.screen.workspace}/{name}", "w") as file:
                file.write("kept")
        for data in (b"a", b"b"):
            self.screen.save(data, "figure", "png")
        self.assertEqual(self.files(), ["figure-1.png", "figure-2.png", "figure-3.png", "figure-4.png"])
        with open(f"{self.screen.workspace}/figure-1.png") as file:
            self.assertEqual(file.read(), "kept")

    def test_rendered(self) -> None:
        cases: "list[tuple[object, object]]" = [
            (lambda self: b"x", b"x"),
            (lambda self: (b"x", {}), b"x"),
            (lambda self: (), None),
            (lambda self: "x", None),
            (lambda self: 1 / 0, None),
            (property(lambda self: 1 / 0), None),
            (None, None),
        ]
        for method, want in cases:
            value = type("A", (), {"_repr_png_": method})()
            self.assertEqual(display.rendered(value, "_repr_png_", bytes), want)
        self.assertIsNone(display.rendered(3, "_repr_png_", bytes))

    def test_a_picture_comes_before_html(self) -> None:
        both = {"_repr_png_": lambda self: b"x", "_repr_html_": lambda self: "x"}
        self.screen.save_picture_of(type("A", (), both)())
        self.assertEqual(self.files(), ["figure-1.png"])
        self.screen.save_picture_of(type("A", (), {**both, "_repr_png_": lambda self: None})())
        self.assertEqual(self.files(), ["figure-1.png", "output-1.html"])

    def test_only_pyplot_is_found(self) -> None:
        hook = display.PyplotHook(self.screen)
        self.assertIsNone(hook.find_spec("colorsys"))
        self.assertIsNone(hook.find_spec("matplotlib.pyplot", []))
