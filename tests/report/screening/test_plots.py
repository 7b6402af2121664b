from dataclasses import replace

import numpy as np
from machine import require

from aiida_oodal.report.screening.content import ScreenView
from aiida_oodal.report.screening.plots import write_screen_plots

require('matplotlib')


def test_figures_for_print(view, tmp_path):
    paths = write_screen_plots(view, tmp_path / 'figures', kinds=['pca'], max_points=60)
    assert [path.name for path in paths] == ['map_pca.png', 'distributions.png', 'errors.png']
    from matplotlib import image

    for path in paths:
        pixels = image.imread(path)
        assert pixels.shape[1] == 2100  # 7 inches at 300 dpi
        assert len(np.unique(pixels[::5, ::5].reshape(-1, pixels.shape[2]), axis=0)) > 50


def test_without_labels_and_without_maps_there_is_less_to_draw(view, tmp_path):
    bare = [replace(entry, consensus={}, force_errors=None) for entry in view.targets]
    paths = write_screen_plots(ScreenView(bare), tmp_path, formats=('svg', 'pdf'))
    assert [path.name for path in paths] == ['distributions.svg', 'distributions.pdf']
