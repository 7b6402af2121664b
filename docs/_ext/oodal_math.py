"""Formulas as MathML, which browsers draw themselves: pages need no script from elsewhere and work offline."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

#: An accented letter in braces with an index after it. docutils drops the braces and sets the index below the letter.
_ACCENTED = re.compile(r'\{(\\(?:bar|hat))\s*(\\\w+|\w)\}(?=[_^])')


def visit_math(translator: Any, node: nodes.math) -> None:
    """Write an inline formula."""
    translator.body.append(_translate(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    translator.body.append(f'<div class="math">{_translate(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _translate(node: nodes.Element, *, as_block: bool) -> str:
    try:
        return str(tex2mathml(_ACCENTED.sub(r'{\1{\2}{}}', node.astext()), as_block=as_block))
    except (MathError, SyntaxError) as error:
        logger.warning('formula %r: %s', node.astext(), error, location=node)
        return ''


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name that ``html_math_renderer`` takes."""
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_math_block, None))
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
