"""Writing HTML and SVG safely: every value is escaped unless it is already `Markup`.

What belongs here: elements, escaping, and how numbers, times and names are spelled for a reader. What a page says is `page.py`.

File names and messages are hostile: they hold quotes, newlines, tags and characters that turn the reading direction. They
reach the page only through `text` (or an attribute of `element`), where the invisible ones are spelled out.
"""

import html
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_SPELLED_OUT = {
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
    "Zl",
    "Zp",
}  # controls, direction marks, surrogates, unassigned, line breaks
_VOID = {"meta", "br", "hr", "input"}


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def visible(value: object) -> str:
    """`value` as one line of printable text; a newline becomes `\\n`, a direction mark `\\u202e`."""
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _SPELLED_OUT else char
        for char in str(value)
    )


def text(value: object) -> Markup:
    """`value` escaped for element content and quoted attributes; Markup passes as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(value), quote=True))


def join(parts: Iterable[object]) -> Markup:
    """The parts one after another, each escaped unless it is Markup."""
    return Markup("".join(text(part) for part in parts))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """`<tag attributes>children</tag>`.

    An attribute's trailing underscore falls away and inner ones become hyphens (`class_`, `stroke_width`); None and False
    leave it out, True writes it bare. Children that are None are left out.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = (
            key.rstrip("_").replace("_", "-").replace("viewbox", "viewBox").replace("preserveaspect", "preserveAspect")
        )
        written.append(f" {name}" if value is True else f' {name}="{text(_plain(value))}"')
    opening = f"<{tag}{''.join(written)}>"
    if tag in _VOID:
        return Markup(opening)
    return Markup(f"{opening}{join(child for child in children if child is not None)}</{tag}>")


def _plain(value: object) -> object:
    """A float attribute in at most two decimals, so that pages stay small and equal on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def source_name(uri: str) -> str:
    """The file name of a percent-encoded URI; bytes that are not UTF-8 show as `\\xff`."""
    path = urlsplit(uri).path if uri.startswith("file:") else uri
    return unquote(path.rsplit("/", 1)[-1], errors="backslashreplace") or uri


def rule(threshold: str) -> str:
    """A threshold as the ledger writes it, in a reader's signs: `≥ 4`, `0.5 – 7`, `in none, letterbox`."""
    return threshold.replace(">=", "≥").replace("<=", "≤").replace("..", " – ").replace("|", ", ")


def count(value: int) -> str:
    """1234 as `1,234`."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """`1 clip`, `12 clips`."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def number(value: float) -> str:
    """A measurement in three significant digits, without an exponent where that reads well."""
    if value == 0 or not abs(value) < float("inf"):
        return "0" if value == 0 else str(value)
    if abs(value) >= 1e7 or abs(value) < 1e-4:
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    shown = f"{value:.3g}"
    return f"{float(shown):f}".rstrip("0").rstrip(".") if "e" in shown else shown


def share(part: int, whole: int) -> str:
    """`part / whole` as a percentage; an empty whole is a dash."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent in (0, 100) or 10 <= percent <= 99 else f"{percent:.1f} %"


def seconds(value: float) -> str:
    """A duration: `4.2 s`, `3 min 20 s`, `5 h 12 min`."""
    if value < 99.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def clock(value: float) -> str:
    """A position in a video: `0:04.2`, `1:02:03.0`."""
    tenths = round(value * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest // 10:02d}.{rest % 10}"


def size(value: int) -> str:
    """A number of bytes: `812 B`, `3.4 MB`."""
    scaled, unit = float(value), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if scaled < 999.5 or unit == "TB":
            break
        scaled /= 1000
    return f"{scaled:.0f} {unit}" if unit == "B" or scaled >= 99.5 else f"{scaled:.1f} {unit}"
