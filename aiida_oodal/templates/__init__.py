"""Jinja2 templates: LAMMPS inputs, computer and code set-ups, reports."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if __name__ != 'aiida_oodal.templates':
    raise ImportError(f'{__name__!r} is a link for reading: the templates belong to aiida_oodal.templates')

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def get_template(name: str) -> Template:
    """Return a template, compiled once: a daemon renders hundreds of scripts.

    A value that is missing is an error. In pages (``.html.j2``) values are escaped.

    :param name: path below this folder, such as ``lammps/md.in.j2``.
    :raises jinja2.TemplateNotFound: if there is none of this name.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader('aiida_oodal', 'templates'),
        undefined=StrictUndefined,
        autoescape=lambda file: file is not None and file.endswith('.html.j2'),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
