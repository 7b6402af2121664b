"""CalcJobs, their parsers, and calcfunctions: thin wrappers around :mod:`aiida_oodal.engine`."""

if __name__ != 'aiida_oodal.calculations':
    raise ImportError(
        f'{__name__!r} is a link for reading: import aiida_oodal.calculations instead, '
        'or the daemon meets a second class that it cannot load'
    )
