"""Jinja2 templates: LAMMPS inputs, computer and code set-ups, the report."""

if __name__ != 'aiida_oodal.templates':
    raise ImportError(f'{__name__!r} is a link for reading: the templates belong to aiida_oodal.templates')
