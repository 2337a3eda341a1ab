"""What the scripts share: experiments, launching, records, statistics, tables and plots."""
