"""Making the profile of an installation, and the one of the quickstart, which keeps to its own folder.

AiiDA is imported by the functions: :class:`EmbeddedProfile` says where its configuration lies before it reads that.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from aiida_oodal.engine.errors import OodalError

#: Options of AiiDA that campaigns of many jobs want; each with its reason.
_OPTIONS = {
    'daemon.timeout': 20,  # the default of 2 s is too short for a busy machine: a daemon that runs is called dead
    'runner.poll.interval': 5,  # where a message was lost, a parent looks after its children this often [s]
    'logging.aiida_loglevel': 'REPORT',
}


#: Keys of a storage's configuration that say which database it is.
_DATABASE = ('database_hostname', 'database_port', 'database_name')


class EmbeddedProfile:
    """A profile that needs no service, in a folder of its own; nothing is written outside of it.

    :param folder: becomes ``AIIDA_PATH``. Set before aiida is imported, which reads it once.
    """

    NAME = 'oodal'

    def __init__(self, folder: Path) -> None:
        if 'aiida.manage.configuration' in sys.modules:
            raise RuntimeError('aiida was imported before its folder was chosen: make the EmbeddedProfile first')
        self.folder = folder.resolve()
        # AiiDA warns when it has to make this folder itself.
        (self.folder / '.aiida').mkdir(parents=True, exist_ok=True)
        os.environ['AIIDA_PATH'] = str(self.folder)

    def load(self) -> bool:
        """Load the profile with its computer ``localhost``; make them first if they are not there.

        :returns: whether the profile was made now.
        """
        from aiida.manage.configuration import get_config, load_profile

        from .computers import make_computer
        from .presets import ComputerSettings

        fresh = self.NAME not in get_config(create=True).profile_names
        make_profile(self.NAME, email='aiida@localhost', postgresql=None, rabbitmq=None, say=_be_quiet)
        load_profile(self.NAME, allow_switch=True)
        settings = ComputerSettings(
            label='localhost',
            work_dir=str(self.folder / 'scratch'),
            path=(str(Path(sys.executable).parent),),
            poll_interval=0.2,
            login_shell=False,  # jobs have the environment of the daemon and PATH; a login shell takes its time
        )
        make_computer('local', settings, _be_quiet)
        return fresh


def extend_path() -> None:
    """Put the folder of ``verdi`` on PATH, where AiiDA looks when it is imported; nobody may have activated it."""
    os.environ['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])


def make_profile(
    name: str, *, email: str, postgresql: str | None, rabbitmq: str | None, say: Callable[[str], None]
) -> None:
    """Make a profile, or leave the one that is there with its data as it is and set what it lacks.

    :param postgresql: ``postgresql://user:password@host:port/database`` of an empty database; None: SQLite.
    :param rabbitmq: ``amqp://user:password@host:port``; None: ZeroMQ.
    :raises OodalError: if the URL is not well formed, the service does not answer, or the profile has another storage.
    """
    from aiida.manage.configuration import create_profile, get_config

    storage, storage_config = ('core.sqlite_dos', {}) if postgresql is None else _postgresql(postgresql)
    broker, broker_config = _broker(rabbitmq)
    config = get_config(create=True)
    if name in config.profile_names:
        profile = config.get_profile(name)
        if profile.storage_backend != storage:
            raise OodalError(
                f'profile {name!r} keeps its data in {profile.storage_backend}, and {storage} is asked for: '
                'choose another --name, or move the data with `verdi archive`'
            )
        for key in _DATABASE if postgresql is not None else ():
            if (there := profile.storage_config.get(key)) != storage_config[key]:
                raise OodalError(
                    f'profile {name!r} keeps its data in another database: {key} is {there!r}, and '
                    f'{storage_config[key]!r} is asked for; choose another --name'
                )
        if profile.process_control_backend != broker:
            _refuse_while_daemon_runs(name)
            profile.set_process_controller(broker, broker_config)
            config.update_profile(profile)
            say(f'profile {name!r} now uses the broker {broker}')
        say(f'found profile {name!r} in {config.dirpath}: {storage}, {profile.process_control_backend}')
    else:
        if 'repository_uri' in storage_config:
            storage_config['repository_uri'] = (Path(config.dirpath) / 'repository' / name).as_uri()
        try:
            profile = create_profile(
                config,
                name=name,
                email=email,
                storage_backend=storage,
                storage_config=storage_config,
                broker_backend=broker,
                broker_config=broker_config,
            )
        except Exception as error:  # what the database driver raises
            config.store()
            raise OodalError(f'profile {name!r} could not be made: {error}') from error
        say(f'made profile {name!r} in {config.dirpath}: {storage}, {broker}')
    for option, value in _OPTIONS.items():
        config.set_option(option, value, scope=name)
    if config.default_profile_name is None:
        config.set_default_profile(name)
        say(f'{name!r} is the default profile')
    config.store()
    if storage == 'core.sqlite_dos':
        enable_wal(Path(profile.storage_config['filepath']) / 'database.sqlite', say)


def enable_wal(database: Path, say: Callable[[str], None]) -> None:
    """Give a SQLite database a write-ahead log, for good: several workers then write at once.

    Source: https://www.sqlite.org/wal.html

    :raises OodalError: if something that runs holds the database.
    """
    connection = sqlite3.connect(database, timeout=10)
    try:
        (before,) = connection.execute('PRAGMA journal_mode').fetchone()
        if before == 'wal':
            return
        (after,) = connection.execute('PRAGMA journal_mode=WAL').fetchone()
    except sqlite3.OperationalError as error:
        raise OodalError(f'{database}: {error}; stop the daemon (`verdi daemon stop`) and repeat') from error
    finally:
        connection.close()
    if after != 'wal':
        raise OodalError(f'{database}: SQLite stays in mode {after!r}; is it on a network file system?')
    say('SQLite keeps a write-ahead log (WAL)')


def _be_quiet(_: str) -> None:
    """Take what is said and say nothing."""


def _refuse_while_daemon_runs(name: str) -> None:
    from aiida.engine.daemon.client import DaemonClient
    from aiida.manage.configuration import get_config

    if DaemonClient(get_config().get_profile(name)).is_daemon_running:
        raise OodalError(
            f'the daemon of profile {name!r} runs with the other broker: `verdi -p {name} daemon stop` first'
        )


def _postgresql(url: str) -> tuple[str, dict[str, Any]]:
    parts = _split(url, 'postgresql')
    database = parts.path.strip('/')
    if not database or not parts.username:
        raise OodalError(f'{url!r} lacks user or database: postgresql://user:password@host:port/database')
    return 'core.psql_dos', {
        'database_engine': 'postgresql_psycopg',
        'database_hostname': parts.hostname or 'localhost',
        'database_port': parts.port or 5432,
        'database_username': unquote(parts.username),
        'database_password': unquote(parts.password or ''),
        'database_name': database,
        'repository_uri': '',
    }


def _broker(url: str | None) -> tuple[str, dict[str, Any]]:
    """Return entry point and configuration of the broker.

    :raises OodalError: if RabbitMQ does not answer.
    """
    from aiida.plugins import BrokerFactory

    if url is None:
        return 'core.zeromq', BrokerFactory('core.zeromq').get_default_config()
    parts = _split(url, 'amqp')
    values = {
        'protocol': parts.scheme,
        'username': unquote(parts.username or 'guest'),
        'password': unquote(parts.password or 'guest'),
        'host': parts.hostname or '127.0.0.1',
        'port': parts.port or 5672,
        'virtual_host': parts.path.strip('/'),
    }
    from aiida.brokers.rabbitmq.defaults import detect_rabbitmq_config

    try:
        return 'core.rabbitmq', detect_rabbitmq_config(**values)
    except ConnectionError as error:
        raise OodalError(f'RabbitMQ does not answer at {parts.hostname}:{values["port"]}: {error}') from error


def _split(url: str, scheme: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        valid = parts.scheme in (scheme, f'{scheme}s') and (parts.port or 0) >= 0
    except ValueError:
        valid = False
    if not valid:
        raise OodalError(f'{url!r} is no {scheme}:// address')
    return parts
