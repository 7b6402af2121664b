"""Reports on campaigns and screenings."""

from .campaign import CampaignHistory, read_history, trace_potential, write_report

__all__ = ('CampaignHistory', 'read_history', 'trace_potential', 'write_report')
