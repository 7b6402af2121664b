"""An AiiDA profile that needs no service: SQLite, the ZeroMQ broker, and a folder of its own."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

PROFILE = 'oodal'


class EmbeddedProfile:
    """The profile in ``folder``; nothing is written outside of it.

    :param folder: becomes ``AIIDA_PATH``. Set before aiida is imported, which reads it once.
    """

    def __init__(self, folder: Path) -> None:
        if 'aiida.manage.configuration' in sys.modules:
            raise RuntimeError('aiida was imported before its folder was chosen: make the EmbeddedProfile first')
        self.folder = folder.resolve()
        # AiiDA warns when it has to make this folder itself.
        (self.folder / '.aiida').mkdir(parents=True, exist_ok=True)
        os.environ['AIIDA_PATH'] = str(self.folder)
        os.environ['AIIDA_PROFILE'] = PROFILE
        # The daemon looks for `verdi` on PATH, the jobs for `python3`: both are those of this environment.
        os.environ['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])

    def load(self) -> bool:
        """Load the profile; make it first if it is not there.

        :returns: whether it was made now.
        """
        from aiida.manage.configuration import get_config, load_profile

        config = get_config(create=True)
        fresh = PROFILE not in config.profile_names
        if fresh:
            self._create()
        load_profile(PROFILE, allow_switch=True)
        self._create_computer()
        return fresh

    def _create(self) -> None:
        from aiida.manage.configuration import create_profile, get_config
        from aiida.plugins import BrokerFactory

        config = get_config()
        profile = create_profile(
            config,
            name=PROFILE,
            email='aiida@localhost',
            storage_backend='core.sqlite_dos',
            storage_config={},
            broker_backend='core.zeromq',
            broker_config=BrokerFactory('core.zeromq').get_default_config(),
        )
        config.set_default_profile(profile.name, overwrite=True)
        for option, value in (
            ('daemon.timeout', 20),
            ('runner.poll.interval', 5),
            ('logging.aiida_loglevel', 'REPORT'),
        ):
            config.set_option(option, value, scope=profile.name)
        config.store()
        # A write-ahead log instead of a lock on the whole file: several workers write at once. It persists.
        database = Path(profile.storage_config['filepath']) / 'database.sqlite'
        with sqlite3.connect(database) as connection:
            connection.execute('PRAGMA journal_mode=WAL')
        connection.close()

    def _create_computer(self) -> None:
        from aiida.orm import Computer, QueryBuilder

        if QueryBuilder().append(Computer, filters={'label': 'localhost'}).count():
            return
        computer = Computer(
            label='localhost',
            hostname='localhost',
            description='This machine, made by aiida-oodal quickstart',
            transport_type='core.local',
            scheduler_type='core.direct',
            workdir=str(self.folder / 'scratch'),
        )
        computer.set_prepend_text(f'export PATH="{Path(sys.executable).parent}:$PATH"')
        computer.store()
        computer.configure(safe_interval=0)
        computer.set_minimum_job_poll_interval(1)
        computer.set_default_mpiprocs_per_machine(1)
