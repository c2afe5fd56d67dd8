"""Templates to pages: escaped, one file, no scripts."""

from __future__ import annotations

from poise._text import visible


def render(template: str, **context: object) -> bytes:
    """The page that `template` makes of `context`.

    Args:
        template: Name of a file beside this one.
        context: What it may name; all text is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("poise.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["visible"] = visible
    return environment.get_template(template).render(**context).encode()
