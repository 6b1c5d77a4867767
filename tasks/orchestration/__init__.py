"""The Prefect side of FlowRL: the server, flow runs, and the devices that they take."""
