"""Translates the syntax of notebooks to calls of get_ipython(), line by line, as IPython does: `%magic`, `%%magic`,
`!command`, `x = !command`, `name?`. The fences of Markdown become empty lines."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

# Patterns for a line. The module re is imported only where Python rejects a program: it takes 5 ms.
FENCE = r"\s*```+\s*[\w+.-]*\s*$"
# What may precede a magic or a command: an indent, and targets of an assignment.
CALL = r"(?P<before>\s*(?:[\w.,\[\]'\"*() ]+(?<![=!<>])=\s*)?)(?P<sign>!!?|%(?!%))(?P<text>.*\S)\s*$"
PIP = r"(?P<indent>\s*)(?P<name>pip3?|conda|mamba)\s+(?P<text>(?:install|uninstall|list|show|freeze|download)\b.*)$"
HELP = r"(?P<indent>\s*)(?:\?{1,2}(?P<after>[\w.]+)|(?P<before>[A-Za-z_][\w.]*)\?{1,2})\s*;?\s*$"


def translate_cell(lines: "list[str]") -> bool:
    """Translates a cell that begins with `%%magic`, in place. Returns whether it does."""
    for number, line in enumerate(lines):
        if line.startswith("%%"):
            name, _, argument = line[2:].strip().partition(" ")
            body = "\n".join(lines[number + 1 :])
            lines[number:] = [f"get_ipython().run_cell_magic({name!r}, {argument.strip()!r}, {body!r})"]
            return True
        if line.strip() and not is_fence(line):
            break
    return False


def is_fence(line: str) -> bool:
    """Reports whether a line is a fence of Markdown, with or without a language."""
    import re

    return re.match(FENCE, line) is not None


def translate_line(lines: "list[str]", number: int) -> bool:
    """Translates a line and those that it continues on, in place. Returns whether it is the syntax of notebooks or
    Markdown. The number counts from 0."""
    if not 0 <= number < len(lines):
        return False
    line = lines[number]
    last = number
    while line.endswith("\\") and last + 1 < len(lines):  # of a command or a magic
        last += 1
        line = line[:-1] + lines[last]
    translated = translation(line)
    if translated is None:
        return False
    lines[number : last + 1] = [translated] + [""] * (last - number)
    return True


def translation(line: str) -> "Optional[str]":
    """Returns the Python for a line, or None."""
    import re

    if is_fence(line):
        return ""
    if match := re.match(CALL, line):
        return match["before"] + call_of(match["sign"], match["text"].strip(), "=" in match["before"])
    if match := re.match(PIP, line):
        return match["indent"] + line_magic(match["name"].rstrip("3"), match["text"])
    if match := re.match(HELP, line):
        return match["indent"] + line_magic("pinfo", match["after"] or match["before"])
    return None


def call_of(sign: str, text: str, assigned: bool) -> str:
    """Returns the call for `%text` or `!text`."""
    if sign == "%":
        name, _, argument = text.partition(" ")
        return line_magic(name, argument.strip())
    method = "getoutput" if assigned or sign == "!!" else "system"
    return f"get_ipython().{method}({text!r})"


def line_magic(name: str, argument: str) -> str:
    """Returns the call of a line magic."""
    return f"get_ipython().run_line_magic({name!r}, {argument!r})"
