"""Tables and plots from records; making them needs no GPU and takes seconds."""
