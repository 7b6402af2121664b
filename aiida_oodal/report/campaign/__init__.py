"""Report on a campaign: its history as plain values, the HTML page, and the provenance of potentials."""

from .history import CampaignHistory, read_history
from .page import write_report
from .provenance import trace_potential

__all__ = ('CampaignHistory', 'read_history', 'trace_potential', 'write_report')
