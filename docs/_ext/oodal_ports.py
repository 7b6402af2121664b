"""Ports and outline of a process: the directive of ``aiida.sphinxext``, which here needs no profile.

It is used as ``{py:aiida-process} CampaignWorkChain`` with the option ``module``. The docstring is left to autodoc,
which reads its markup, and exit codes to ``oodal_tables``, since the directive of AiiDA has none.
"""

from __future__ import annotations

import copy
import importlib
import re
from typing import Any

from aiida.engine import CalcJob
from aiida.engine.processes.ports import PortNamespace
from aiida.sphinxext.process import AiidaProcessDirective
from docutils import nodes
from sphinx.application import Sphinx

#: Code in the help of a port, which is written as in Markdown.
_CODE = re.compile(r'(?<!`)`([^`]+)`(?!`)')
#: Ports that AiiDA gives to processes; they are described in its own documentation.
_OF_ALL, _OF_JOBS = frozenset({'metadata', 'monitors'}), frozenset({'remote_folder', 'remote_stash', 'retrieved'})


class PortsDirective(AiidaProcessDirective):  # type: ignore[misc]
    """Show the inputs, the outputs and the outline of a process."""

    def initialize(self) -> None:
        """Import the process; unlike AiiDA's own directive this loads no profile, which specs do not need."""
        self.class_name, self.module_name = self.arguments[0], self.options['module']
        found = getattr(importlib.import_module(self.module_name), self.class_name)
        self.process = found if isinstance(found, type) else found.process_class
        self.process_spec = self.process.spec()
        self._hidden = _OF_ALL | _OF_JOBS if issubclass(self.process, CalcJob) else _OF_ALL

    def build_node_tree(self) -> list[nodes.Node]:
        """Return the lists; the heading is that of the page."""
        spec = self.process_spec
        content = [self.build_doctree('Inputs', spec.inputs), self.build_doctree('Outputs', spec.outputs)]
        if getattr(spec, '_outline', None) is not None:
            content.append(self.build_outline_doctree(spec.get_outline()))
        return content

    def build_doctree(self, title: str, port_namespace: PortNamespace) -> nodes.Node:
        """Return the list of ports below its title."""
        container = nodes.container(classes=['oodal-ports'])
        container += nodes.paragraph('', '', nodes.strong(text=title))
        ports = self.build_portnamespace_doctree(port_namespace)
        named = 'Any, under names of your own.' if port_namespace.dynamic else 'None.'
        container += ports if len(ports) else nodes.paragraph(text=named)
        return container

    def build_portnamespace_doctree(self, port_namespace: PortNamespace) -> nodes.bullet_list:
        """Return the list of a namespace, without what every process has."""
        hidden = self._hidden | ({'remote_folder'} if 'code' in port_namespace else set())
        shown = {name: _quote_code(port) for name, port in port_namespace.items() if name not in hidden}
        return super().build_portnamespace_doctree(shown) or nodes.bullet_list()

    @staticmethod
    def format_valid_types(valid_type: Any) -> str:
        """Return the names of types; that an optional port takes None is not said again."""
        kinds = valid_type if isinstance(valid_type, tuple) else (valid_type,)
        return ' or '.join(getattr(kind, '__name__', str(kind)) for kind in kinds if kind is not type(None)) or 'any'


def _quote_code(port: Any) -> Any:
    """Return a port whose help has code quoted as in reStructuredText, which the directive parses."""
    shown = copy.copy(port)
    if port.help:
        shown.help = _CODE.sub(r'``\1``', port.help)
    return shown


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive in the Python domain, as AiiDA does."""
    app.add_directive_to_domain('py', 'aiida-process', PortsDirective)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
