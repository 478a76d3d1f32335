"""Reports of evaluations: Markdown tables and one self-contained HTML page."""
