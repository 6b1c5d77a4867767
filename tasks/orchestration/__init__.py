"""The Prefect side of FlowRL: the server, flow runs, and the devices that runs use."""
