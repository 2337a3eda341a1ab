"""From records to tables and plots: reads records only, needs no GPU and takes seconds."""
