"""What a campaign and those who look at it agree on: its names, and the labels of its call links.

It imports nothing of the package, so that a look at a campaign takes no longer than AiiDA itself takes to begin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

#: Process type of a campaign, and the name that AiiDA shows.
CAMPAIGN, CAMPAIGN_NAME = 'aiida.workflows:oodal.campaign', 'CampaignWorkChain'
#: Extra of a campaign that asks it to stop before its next round; its value is the reason, a sentence or empty.
STOP = 'oodal_stop'
_PATTERN = re.compile(r'(?P<stage>[a-z]+)_(?P<round>\d+)(?:_(?P<walker>.+))?')
_LEG = re.compile(r'leg (\d+) of (\d+)')


class Stage(StrEnum):
    """The stages of a round, in their order."""

    EXPLORE = 'explore'
    #: Frames of walkers that all ran to their end are labelled.
    AUDIT = 'audit'
    SELECT = 'select'
    LABEL = 'label'
    TRAIN = 'train'
    #: The second training of a round, with other weights, if the first one was worse than the one before.
    RETRAIN = 'retrain'
    #: What drove the walkers is compared with the labels of the round, while the next training runs.
    JUDGE = 'judge'
    #: What gamma means in eV/angstrom is fitted to what was judged in the round, by the audit or by `JUDGE`.
    CALIBRATE = 'calibrate'


@dataclass(frozen=True)
class Call:
    """One call of a campaign; ``str(call)`` is the label of its link.

    :param stage: what is called.
    :param round: 0 for the first labels and the first training, then from 1.
    :param walker: name of the walker, for :attr:`Stage.EXPLORE` only.
    """

    stage: Stage
    round: int
    walker: str | None = None

    def __str__(self) -> str:
        return f'{self.stage}_{self.round}' + ('' if self.walker is None else f'_{self.walker}')

    @classmethod
    def parse(cls, label: str) -> Call | None:
        """Return the call that a link label stands for; None for labels of other calls."""
        match = _PATTERN.fullmatch(label)
        if match is None or match['stage'] not in set(Stage):
            return None
        stage = Stage(match['stage'])
        if (stage is Stage.EXPLORE) != (match['walker'] is not None):
            return None
        return cls(stage, int(match['round']), match['walker'])


@dataclass(frozen=True)
class Leg:
    """A part of a campaign with the same settings of MD; ``str(leg)`` is the description of its explorations.

    :param number: 1 with the settings of the walkers themselves, then one for each entry of their schedule.
    :param count: how many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f'leg {self.number} of {self.count}'

    @classmethod
    def parse(cls, description: str) -> Leg | None:
        """Return the leg that a description stands for; None where walkers have no schedule."""
        match = _LEG.fullmatch(description)
        return None if match is None else cls(int(match[1]), int(match[2]))
