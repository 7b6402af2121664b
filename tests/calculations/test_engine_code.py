import io
import zipfile

from aiida_oodal import __version__
from aiida_oodal.calculations.engine_code import engine_files, engine_label, get_engine_code, pack


def test_the_code_is_made_once_and_holds_the_engine():
    code = get_engine_code()
    assert get_engine_code().uuid == code.uuid
    assert code.label == engine_label()
    assert code.label.startswith(f'oodal-engine-{__version__}-')
    packed = code.base.repository.get_object_content('oodal-engine', mode='rb')
    assert packed == pack(engine_files())
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        for name, content in engine_files().items():
            assert archive.read(name) == content


def test_a_change_of_the_engine_makes_another_code(monkeypatch):
    before = engine_label()
    files = engine_files() | {'aiida_oodal/engine/new.py': b'x = 1\n'}
    monkeypatch.setattr('aiida_oodal.calculations.engine_code.engine_files', lambda: files)
    assert engine_label() != before
