"""WorkChains: sequencing only; the science is in :mod:`aiida_oodal.engine`."""

if __name__ != 'aiida_oodal.workchains':
    raise ImportError(
        f'{__name__!r} is a link for reading: import aiida_oodal.workchains instead, '
        'or the daemon meets a second class that it cannot load'
    )
