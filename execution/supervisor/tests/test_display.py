"""Tests of display.py, gallery.py and libraries.py. They run in a sandbox, like any program."""

import builtins
import io
import os
import sys
import tempfile
import types
import unittest

from unittest import mock

import display
import gallery
import libraries

from handover import RESULT_ITEM


class DisplayTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.screen = display.Display()
        self.screen.workspace = folder.name
        self.results = folder.name + "-results"
        self.out = io.StringIO()
        for patch in (
            mock.patch.object(display, "RESULTS_FILE", self.results),
            mock.patch.object(sys, "stdout", self.out),
        ):
            self.addCleanup(patch.stop)
            patch.start()

    def files(self) -> "list[str]":
        return sorted(os.listdir(self.screen.workspace))

    def test_files_are_numbered_and_not_overwritten(self) -> None:
        for name in ("figure-1.png", "figure-3.png"):
            with open(f"{self.screen.workspace}/{name}", "w") as file:
                file.write("kept")
        for data in (b"a", b"b"):
            self.screen.gallery().save(data, "figure", "png")
        self.assertEqual(self.files(), ["figure-1.png", "figure-2.png", "figure-3.png", "figure-4.png"])
        with open(f"{self.screen.workspace}/figure-1.png") as file:
            self.assertEqual(file.read(), "kept")

    def test_bundles(self) -> None:
        cases: "list[tuple[object, object]]" = [
            (lambda self: b"x", b"x"),
            (lambda self: "eA==", b"x"),
            (lambda self: (b"x", {}), b"x"),
            (lambda self: (), None),
            (lambda self: 3, None),
            (lambda self: 1 / 0, None),
            (property(lambda self: 1 / 0), None),
            (None, None),
        ]
        for method, want in cases:
            value = type("A", (), {"_repr_png_": method})()
            self.assertEqual(gallery.bundle_of(value).get("image/png"), want)
        self.assertEqual(gallery.bundle_of(3), {})
        both = {"_repr_mimebundle_": lambda self: {"text/html": "a", "x/y": "b"}, "_repr_html_": lambda self: "c"}
        self.assertEqual(gallery.bundle_of(type("A", (), both)()), {"text/html": b"a", "x/y": b"b"})

    def test_pages_are_documents(self) -> None:
        for html in (
            "<b>é</b>",
            "<html><head></head>é</html>",
            "<!doctype html><p>é",
            "<!DOCTYPE html><meta charset=utf-8>é",
        ):
            page = gallery.page_of(html)
            self.assertTrue("charset" in page.lower() or page[0] == "\ufeff", page)
            self.assertRegex(page.lower(), "^\ufeff?<(!doctype|html)")

    def test_records(self) -> None:
        kind = type("A", (), {"_repr_markdown_": lambda self: "# x", "__repr__": lambda self: "<A>"})
        self.screen.display(7, kind())
        with open(self.results, "rb") as file:
            found = file.read()
        items = [(True, b"text/plain", b"7"), (True, b"text/plain", b"# x"), (False, b"text/markdown", b"# x")]
        packed = [RESULT_ITEM.pack(begins, len(name), len(data)) + name + data for begins, name, data in items]
        self.assertEqual(found, b"".join(packed))
        self.assertEqual(self.out.getvalue(), "7\n# x\n")

    def test_what_the_program_saves_too_is_not_saved(self) -> None:
        picture = type("A", (), {"_repr_png_": lambda self: b"x"})
        self.screen.display(picture(), picture())
        self.assertEqual(self.files(), ["figure-1.png", "figure-2.png"])
        with open(f"{self.screen.workspace}/mine.png", "wb") as file:
            file.write(b"x")
        self.screen.finish()
        self.assertEqual(self.files(), ["mine.png"])

    def test_buffers_are_shown_at_the_end(self) -> None:
        self.screen.gallery().buffered.append((b"x", "png"))
        self.screen.finish()
        self.screen.finish()
        self.assertEqual(self.files(), ["figure-1.png"])

    def test_a_picture_comes_before_html(self) -> None:
        both = {"_repr_png_": lambda self: b"x", "_repr_html_": lambda self: "x"}
        self.screen.gallery().save_rich(type("A", (), both)())
        self.assertEqual(self.files(), ["figure-1.png"])
        self.screen.gallery().save_rich(type("A", (), {**both, "_repr_png_": lambda self: None})())
        self.assertEqual(self.files(), ["figure-1.png", "output-1.html"])

    def test_only_pyplot_is_found(self) -> None:
        self.addCleanup(vars(builtins).pop, "display", None)
        with mock.patch.object(sys, "displayhook"):
            hook = self.screen.install(self.screen.workspace)
        self.addCleanup(sys.meta_path.remove, hook)
        self.assertIsNone(hook.find_spec("colorsys"))
        self.assertIsNone(hook.find_spec("matplotlib.pyplot", []))

    def test_texts_fall_back_to_the_fonts_of_the_defaults(self) -> None:
        class FontManager:
            def _find_fonts_by_props(self, prop: "FakeFont") -> "list[str]":
                return prop.families

        module = types.ModuleType("font_manager")
        module.__dict__["FontManager"] = FontManager
        matplotlib = types.ModuleType("matplotlib")
        matplotlib.__dict__["rcParamsDefault"] = {"font.family": ["sans-serif", "A", "B"]}
        libraries.fall_back(self.screen.gallery(), module)
        with mock.patch.dict(sys.modules, matplotlib=matplotlib):
            for font, want in (
                (FakeFont(["serif"]), ["serif", "A", "B"]),
                (FakeFont(["B", "C"]), ["B", "C", "A"]),
                (FakeFont(["serif"], "own.ttf"), ["serif"]),
            ):
                before = list(font.families)
                self.assertEqual(FontManager()._find_fonts_by_props(font), want)
                self.assertEqual(font.families, before)


class FakeFont:
    """What Matplotlib searches a font by."""

    def __init__(self, families: "list[str]", file: "str | None" = None) -> None:
        self.families, self.file = families, file

    def get_family(self) -> "list[str]":
        return self.families

    def get_file(self) -> "str | None":
        return self.file

    def copy(self) -> "FakeFont":
        return FakeFont(self.families, self.file)

    def set_family(self, families: "list[str]") -> None:
        self.families = families
