"""Report on a screening: page, figures, tables."""
