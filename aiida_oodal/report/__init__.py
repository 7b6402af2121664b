"""What a campaign did, for people: its history as plain values, the page, the chain of nodes."""

from .history import CampaignHistory, read_history
from .page import write_report
from .provenance import trace_potential

__all__ = ('CampaignHistory', 'read_history', 'trace_potential', 'write_report')
