"""Profiles; from nothing they are tried in ``tests/production`` and by the quickstart."""

import sqlite3
from pathlib import Path

import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.profiles import enable_wal, make_profile


def test_wal_is_for_good(tmp_path):
    path = tmp_path / 'database.sqlite'
    said = []
    for _ in range(2):
        enable_wal(path, said.append)
    connection = sqlite3.connect(path)
    assert connection.execute('PRAGMA journal_mode').fetchone() == ('wal',)
    connection.close()
    assert said == ['SQLite keeps a write-ahead log (WAL)']


def test_addresses_of_services_are_checked(tmp_path):
    for url, message in (
        ('mysql://u:p@h/d', 'is no postgresql:// address'),
        ('postgresql://localhost/d', 'lacks user or database'),
        ('postgresql://u:p@h:port/d', 'is no postgresql:// address'),
    ):
        with pytest.raises(OodalError, match=message):
            make_profile('never', email='a@b', postgresql=url, rabbitmq=None, say=print)
    with pytest.raises(OodalError, match='RabbitMQ does not answer at localhost:1'):
        make_profile('never', email='a@b', postgresql=None, rabbitmq='amqp://localhost:1', say=print)
    assert not list(Path(tmp_path).iterdir())
