"""A page that is whole by itself: text, tables and pictures in one file, readable without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from msgspec import Struct, field

from mobtk._version import __version__
from mobtk.errors import BadInput
from mobtk.storage import PathLike, check_new_file, write_text


class Section(Struct):
    """A part of a page.

    Args:
        title: above it.
        text: plain words, a paragraph a line.
        code: what is shown as it is: commands, files, tables in text.
        rows: a table; the first row is its head.
        pictures: addresses of images, each with a sentence that says what it shows.
    """

    title: str
    text: str = ""
    code: str = ""
    rows: Sequence[Sequence[Any]] = field(default_factory=list)
    pictures: Sequence[tuple[str, str]] = field(default_factory=list)


TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1a202c }
 h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #cbd5e0 }
 p { max-width: 46rem; margin: .5rem 0 } a { color: #2b6cb0 } a:focus-visible { outline: 3px solid #2b6cb0 }
 nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem }
 table { border-collapse: collapse; font-size: .9rem; display: block; overflow-x: auto; margin: .8rem 0 }
 td, th { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #e2e8f0; vertical-align: top;
  min-width: 4.5rem }
 pre { background: #f7fafc; padding: .8rem; overflow-x: auto; white-space: pre-wrap; font-size: .85rem }
 .many { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2rem }
 figure { margin: .8rem 0; min-width: 0 } img { max-width: 100%; height: auto }
 figcaption, footer { color: #4a5568; font-size: .85rem }
 @media print { nav { display: none } figure, tr { break-inside: avoid-page } h2 { break-after: avoid-page }
  body { max-width: none; margin: 0 } table { display: table } }
</style>
<h1>{{ title }}</h1>
<nav aria-label="sections">{% for s in sections %}<a href="#s{{ loop.index }}">{{ s.title }}</a>{% endfor %}</nav>
{% for s in sections %}
<section id="s{{ loop.index }}"><h2>{{ s.title }}</h2>
{% for line in s.text.splitlines() %}<p>{{ line }}</p>
{% endfor %}
{% if s.rows %}<table><thead><tr>{% for c in s.rows[0] %}<th scope="col">{{ c }}</th>{% endfor %}</tr></thead><tbody>
{% for row in s.rows[1:] %}<tr>{% for c in row %}<td>{{ c }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endif %}
{% if s.pictures %}<div{% if s.pictures|length > 2 %} class="many"{% endif %}>
{% for image, says in s.pictures %}<figure><img src="{{ image }}" alt="{{ says }}">
<figcaption>{{ says }}</figcaption></figure>
{% endfor %}</div>{% endif %}
{% if s.code %}<pre>{{ s.code }}</pre>{% endif %}
</section>
{% endfor %}
<footer>Made by mobtk {{ version }}.</footer>
</html>
"""


def check_page(out: PathLike, replace: bool) -> None:
    """Refuse a file that is not to be a page, before any work is done: only what ends in .html is ever replaced.

    Raises:
        BadInput: another ending, or it exists and may not be replaced.
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"a page ends in .html, and {out} does not")
    check_new_file(out, replace)


def write_page(out: PathLike, title: str, sections: Sequence[Section]) -> None:
    """Write a page, whole or not at all; see :func:`check_page` first."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE).render(title=title, sections=sections, version=__version__)
    write_text(out, page)
