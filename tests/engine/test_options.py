"""Options are declared once: what the host checks and what a job reads are the fields of one dataclass."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option


@dataclass(frozen=True)
class Cooking(Options):
    TITLE: ClassVar[str] = 'cooking'

    dish: Literal['soup', 'roast'] = option(..., 'What is cooked.')
    hours: float = option(1.0, 'How long, h.', gt=0.0, le=24.0)
    guests: int | None = option(None, 'How many eat.', ge=1)
    courses: tuple[int, ...] = option((1, 2), 'Which courses.', min_length=1)
    spices: dict[str, float] = option(..., 'Grams by name.', factory=dict)

    def __post_init__(self) -> None:
        if self.dish == 'soup' and self.hours > 3.0:
            raise OodalError(f'hours = {self.hours:g} is too long for soup: 3 at most')


def test_plain_values_lead_back_to_the_same_options():
    made = Cooking.load({'dish': 'roast', 'hours': 5, 'courses': [3], 'spices': {'salt': 2}})
    assert made == Cooking('roast', 5.0, None, (3,), {'salt': 2.0})
    assert Cooking.read(json.loads(json.dumps(made.plain()))) == made
    assert Cooking.read({'dish': 'soup'}) == Cooking('soup')
    assert Cooking('soup').spices is not Cooking('soup').spices


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({}, ['cooking: dish is missing']),
        ({'dish': 'cake'}, ["cooking: dish = 'cake'", "'soup' or 'roast'"]),
        ({'dish': 'roast', 'hours': 0}, ['hours = 0', 'allowed: float, > 0.0, <= 24.0']),
        ({'dish': 'roast', 'hours': float('nan')}, ['hours = nan']),
        ({'dish': 'roast', 'guests': 1.5}, ['guests = 1.5']),
        ({'dish': 'roast', 'courses': []}, ['courses = []', 'at least 1 entries']),
        ({'dish': 'roast', 'hour': 2}, ["'hour' is not a setting; did you mean 'hours'?"]),
        ({'dish': 'soup', 'hours': 4}, ['cooking: hours = 4 is too long for soup: 3 at most']),
    ],
)
def test_the_host_names_field_value_and_limit(values, words):
    problem = Cooking.check(values)
    assert all(word in problem for word in words), problem
    with pytest.raises(OodalError):
        Cooking.load(values)


def test_a_job_refuses_fields_that_its_engine_does_not_know():
    with pytest.raises(OodalError, match='cooking: this engine does not know wine, only dish, hours'):
        Cooking.read({'dish': 'soup', 'wine': 'red'})


def test_jobs_read_options_without_pydantic():
    code = (
        'import sys; sys.modules["pydantic"] = None\n'
        'from dataclasses import dataclass\n'
        'from aiida_oodal.engine.options import Options, option\n'
        '@dataclass(frozen=True)\n'
        'class Few(Options):\n'
        '    TITLE = "few"\n'
        '    n: int = option(1, "How many.", ge=1)\n'
        'print(Few.read({"n": 3}).plain())\n'
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == (
        "{'n': 3}\n"
    )
