"""Layer responses of finished networks: experiment, measurement, page and plot."""
