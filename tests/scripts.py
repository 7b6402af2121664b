"""Run a script of ``examples/`` as a user does who changes the constants at its top."""

import ast
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / 'examples'


def run_example(name, **constants):
    """Return the variables that a script leaves.

    :param constants: plain values, in the place of those that the script gives to these names.
    """
    path = EXAMPLES / name
    tree = ast.parse(path.read_text(encoding='utf-8'), str(path))
    given = {ast.unparse(node.targets[0]): node for node in tree.body if isinstance(node, ast.Assign)}
    for constant, value in constants.items():
        given[constant].value = ast.parse(repr(value), mode='eval').body
    variables = {'__name__': '<run_path>', '__file__': str(path)}
    exec(compile(ast.fix_missing_locations(tree), path, 'exec'), variables)
    return variables
