"""The pieces that every page is made of."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources

from rlhf_jax.report.drawing import Content, Panel


def figure(panel: Panel) -> str:
    key = "".join(
        "<span>"
        + (f'<i style="color:{colour}">━</i>' if colour else "")
        + f"{escape(label)}</span>"
        for label, colour in panel.key
    )
    key = f'<div class="key">{key}</div>' if key else ""
    return (
        f'<figure id="{panel.name}"><h4>{escape(panel.title)}</h4>{panel.svg}'
        f"<figcaption>{key}{escape(panel.note)}</figcaption></figure>"
    )


def section(title: str, *parts: str) -> str:
    """Empty where all parts are."""
    inside = "\n".join(p for p in parts if p)
    return f"<section><h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def absent(lines: Iterable[str]) -> str:
    return "".join(paragraph(f"Left out. {line}", "note") for line in lines)


def panels(content: Content) -> str:
    drawn = "".join(map(figure, content.panels))
    return (f'<div class="panels">{drawn}</div>' if drawn else "") + absent(content.missing)


def document(title: str, body: str, style: str = "") -> str:
    """A whole HTML file that needs nothing else; `style` follows the report's own."""
    css = resources.files(__package__).joinpath("report.css").read_text("utf-8") + style
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
