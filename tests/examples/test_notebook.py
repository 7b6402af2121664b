"""The notebook runs on what the repository ships, and says what it promises."""

import warnings
from pathlib import Path

import pytest
from machine import require

require('nbformat', 'nbclient', 'ipykernel', 'mace', 'matplotlib')

NOTEBOOK = Path(__file__).parents[2] / 'examples' / 'ood_latent.ipynb'


def texts(notebook):
    """Return what the cells printed."""
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    return '\n'.join(output.get('text', '') or output.get('data', {}).get('text/plain', '') for output in outputs)


def test_no_output_is_kept():
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.get('execution_count') is None and not cell.get('outputs') for cell in notebook.cells)


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # those of the kernel's client; the code runs in a process of its own
        nbclient.NotebookClient(notebook, timeout=600, resources={'metadata': {'path': NOTEBOOK.parent}}).execute()
    said = texts(notebook)
    assert '4 models, 32 latents of each atom' in said
    assert 'aligned_variance (mean) of hot against heldout: separates the sets' in said
    images = [o for cell in notebook.cells for o in cell.get('outputs', []) if 'image/png' in o.get('data', {})]
    assert len(images) == 4
    assert 'stderr' not in {o.get('name') for cell in notebook.cells for o in cell.get('outputs', [])}, said
