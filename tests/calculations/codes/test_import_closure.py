import pytest

from aiida_oodal.calculations.codes.import_closure import find_closure
from aiida_oodal.engine.errors import OodalError

FILES = {
    '__init__.py': '',
    'start.py': """
'''pack.in_a_docstring is only spoken of, and so is ``pack.named``.'''
from typing import TYPE_CHECKING
import json, importlib
from . import sibling
from .room import value
from .room.module import *
if TYPE_CHECKING:
    from . import for_type_checkers
else:
    from . import at_run_time
REGISTRY = {'a': 'pack.named', 'b': 'pack.room.factory:open_it', 'c': 'pack.nowhere', 'd': 'json.decoder'}
def function():
    import pack.lazy.deep
""",
    'sibling.py': 'from pack.room import lonely as other',
    'room/__init__.py': 'value = 1',
    'room/module.py': 'from .. import start, up  # a circle',
    'room/factory.py': 'from ..lazy.deep import anything',
    'room/lonely.py': '',
    'lazy/__init__.py': '',
    'lazy/deep.py': '',
    'up.py': 'import packed_elsewhere',
    'named.py': '',
    'at_run_time.py': '',
    'in_a_docstring.py': '',
    'for_type_checkers.py': '',
    'not_imported.py': '',
}


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / 'pack'
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_it_holds_what_is_imported_or_named_and_nothing_else(package):
    found = {str(path.relative_to(package)) for path in find_closure(package, 'pack.start')}
    assert set(FILES) - found == {'in_a_docstring.py', 'for_type_checkers.py', 'not_imported.py'}
    assert found <= set(FILES)


def test_it_begins_where_it_is_told(package):
    found = {str(path.relative_to(package)) for path in find_closure(package, 'pack.sibling')}
    assert found == {'__init__.py', 'sibling.py', 'room/__init__.py', 'room/lonely.py'}


def test_a_module_that_is_not_there_is_told(package):
    (package / 'sibling.py').write_text('from .gone import something')
    with pytest.raises(OodalError, match=r'pack\.sibling imports pack\.gone, which is not in '):
        find_closure(package, 'pack.start')
