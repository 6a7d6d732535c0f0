"""Prepares the fonts of the image, when it is built: what Matplotlib falls back to, and names of fonts that stand in."""

import glob
import os
import re
from dataclasses import replace
from xml.sax.saxutils import escape

import matplotlib
import matplotlib.font_manager as manager
from fontTools import merge, subset, ttLib
from fontTools.ttLib.scaleUpem import scale_upem

HERE = os.path.dirname(__file__)
NOTO = "/usr/share/fonts/truetype/noto/"
SYMBOLA = "/usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf"
MERGED = "Vivarium Fallback"
FALLBACK = [MERGED, "Noto Sans CJK JP"]
WEIGHTS = {400: "normal", 700: "bold"}
FOLDER = "/usr/share/fonts/truetype/vivarium/"
TABLES = {"GlyphOrder", "head", "hhea", "maxp", "OS/2", "hmtx", "cmap", "loca", "glyf", "name", "post"}
# Matplotlib knows the first font of a collection only. It has the characters of all.
COLLECTIONS = {
    kind + which: kind + "JP" for kind in ("Noto Sans CJK ", "Noto Serif CJK ") for which in ("SC", "TC", "KR")
}


def part(path: str, seen: "set[int]") -> "ttLib.TTFont | None":
    """Returns the characters of a font that are not seen yet, without what only shaping needs."""
    options = subset.Options(hinting=False, notdef_outline=True, name_IDs=[1, 2, 4, 6])
    font = subset.load_font(path, options)
    for table in set(font.keys()) - TABLES:
        del font[table]
    wanted = set(font.getBestCmap()) - seen
    if not wanted:
        return None
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=wanted)
    chosen.subset(font)
    scale_upem(font, 1000)
    seen |= wanted
    return font


def write_fallback(weight: str) -> None:
    """Writes a font with the characters of all scripts that are not in Noto Sans CJK: each font that Matplotlib falls
    back to is searched for, and opened, for every program that draws."""
    seen: "set[int]" = set()
    paths = [NOTO + f"NotoSans-{weight}.ttf"]
    for also in dict.fromkeys((weight, "Regular")):  # some have no bold characters
        paths += sorted(glob.glob(NOTO + f"NotoSans[A-Z]*-{also}.ttf")) + [NOTO + f"NotoSerifTibetan-{also}.ttf"]
    fonts = [font for path in [*paths, SYMBOLA] if (font := part(path, seen)) is not None]
    parts = []
    for number, font in enumerate(fonts):
        font["OS/2"] = fonts[0]["OS/2"]
        parts.append(f"/tmp/part-{number}.ttf")
        font.save(parts[-1])
    font = merge.Merger().merge(parts)
    for record in font["name"].names:
        record.string = {1: MERGED, 2: weight, 6: f"VivariumFallback-{weight}"}.get(record.nameID, f"{MERGED} {weight}")
    font["OS/2"].usWeightClass = 700 if weight == "Bold" else 400
    os.makedirs(FOLDER, exist_ok=True)
    font.save(FOLDER + f"Fallback-{weight}.ttf")
    for path in parts:
        os.remove(path)


def read_names() -> "dict[str, list[str]]":
    """Returns the names that each font stands in for."""
    with open(HERE + "/fonts.txt", encoding="utf-8") as file:
        lines = (line.strip().partition(": ") for line in file if line.strip() and line[0] != "#")
        return {font: names.split(", ") for font, _, names in lines}


def write_fontconfig(names: "dict[str, list[str]]") -> None:
    """Tells fontconfig, which Graphviz and FFmpeg ask."""
    with open("/etc/fonts/local.conf", "w", encoding="utf-8") as file:
        file.write('<?xml version="1.0"?>\n<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">\n<fontconfig>\n')
        # It has no rules for shaping, which those programs know.
        file.write(f"<selectfont><rejectfont><glob>{FOLDER}*</glob></rejectfont></selectfont>\n")
        for font, others in names.items():
            for name in others:
                file.write(f'<alias binding="same"><family>{escape(name)}</family>')
                file.write(f"<accept><family>{escape(font)}</family></accept></alias>\n")
        file.write("</fontconfig>\n")


def write_matplotlib(names: "dict[str, list[str]]") -> None:
    """Writes Matplotlib's list of fonts, with the names. Matplotlib searches it from the beginning, in Python, for every size
    of every family, until a font fits exactly. So the usual fonts come first. A weight fits exactly if it is a name."""
    fonts = [replace(font, weight=WEIGHTS.get(font.weight, font.weight)) for font in manager.fontManager.ttflist]
    usual = ("DejaVu Sans", *FALLBACK, "DejaVu Serif", "DejaVu Sans Mono")
    fonts.sort(
        key=lambda font: (plain(font), -usual.index(font.name) if font.name in usual else -len(usual)), reverse=True
    )
    for font, others in [*((known, [name]) for name, known in COLLECTIONS.items()), *names.items()]:
        found = {(entry.style, entry.weight): entry for entry in fonts if entry.name == font and plain(entry)}
        if not found:
            raise SystemExit(f"there is no font {font}")
        known = {entry.name for entry in fonts}
        fonts += [replace(entry, name=name) for name in others if name not in known for entry in found.values()]
    manager.fontManager.ttflist = fonts
    (cache,) = glob.glob(matplotlib.get_cachedir() + "/fontlist-*.json")
    manager.json_dump(manager.fontManager, cache)


def plain(font: manager.FontEntry) -> bool:
    """Reports whether a font is neither condensed nor of a rare weight."""
    return font.stretch == "normal" and font.weight in WEIGHTS.values()


def write_defaults() -> None:
    """Makes Matplotlib fall back, character by character, also after rcdefaults()."""
    for path in (matplotlib.matplotlib_fname(), matplotlib.get_data_path() + "/matplotlibrc"):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        text, changed = re.subn(r"(?m)^#? ?font\.family:.*$", ", ".join(["font.family: sans-serif", *FALLBACK]), text)
        if changed != 1:
            raise SystemExit(f"{path} has {changed} lines for font.family")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


for weight in ("Regular", "Bold"):
    write_fallback(weight)
manager.fontManager = manager._load_fontmanager(try_read_cache=False)
NAMES = read_names()
write_fontconfig(NAMES)
write_matplotlib(NAMES)
write_defaults()
