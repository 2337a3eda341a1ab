"""Layer responses of finished networks: the experiment, their measurement, page and plot."""
